"""The write-ahead log of a SQLite store is kept small by one process."""

import logging
import os
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from filelock import Timeout
from sqlalchemy import Connection, text

from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import CHECKPOINT_BYTES


def _add(conn: Connection, row: dict[str, str]) -> None:
    conn.execute(text("INSERT INTO prompts VALUES (:hash, :text)"), row)


def test_the_log_is_checkpointed(tmp_path: Path) -> None:
    """After writing many times the checkpoint size, the log is less than two checkpoints long and nothing is lost."""
    database = Database.open("handrail.db", tmp_path)
    log = tmp_path / "handrail.db-wal"
    sizes = []
    for number in range(60):
        row = {"hash": str(number), "text": os.urandom(250_000).hex()}
        database.write_now(partial(_add, row=row))
        sizes.append(log.stat().st_size)
    assert max(sizes) < 2 * CHECKPOINT_BYTES
    assert database.read_now(lambda conn: conn.execute(text("SELECT count(*) FROM prompts")).scalar()) == 60
    database.close()


def test_one_of_two_writers_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two writers of one file, one gets the checkpoint lock, and each logs once whether it has it."""
    caplog.set_level(logging.INFO, "handrail.kernel.db.group_writer")
    writers = [Database.open("handrail.db", tmp_path) for _ in range(2)]
    for number in range(80):
        row = {"hash": str(number), "text": os.urandom(250_000).hex()}
        writers[number % 2].write_now(partial(_add, row=row))
    for database in writers:
        database.close()
    assert sorted(caplog.messages) == ["another process checkpoints the store", "this process checkpoints the store"]
    assert all(record.__dict__["store"] == str(tmp_path / "handrail.db") for record in caplog.records)


def test_each_reason_without_a_lock_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A lock that another process has first, and that fails later, is logged once for each reason."""
    caplog.set_level(logging.INFO, "handrail.kernel.db.group_writer")
    database = Database.open("handrail.db", tmp_path)
    refusals = [Timeout("lock"), OSError("no space"), Timeout("lock"), OSError("no space")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("filelock.FileLock.acquire", Mock(side_effect=refusals))
        patch.setattr("handrail.kernel.db.group_writer.CHECKPOINT_BYTES", 0)
        for number in range(len(refusals)):
            database.write_now(partial(_add, row={"hash": str(number), "text": "x"}))
        database.close()
    assert caplog.messages == [
        "another process checkpoints the store",
        "no checkpoint lock, so the write-ahead log grows: no space",
    ]


def test_a_write_without_a_connection_fails(tmp_path: Path) -> None:
    """If no connection can be opened, a write raises the error instead of waiting for ever, and later ones succeed."""
    database = Database.open("handrail.db", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqlalchemy.Engine.connect", Mock(side_effect=OSError("too many open files")))
        with pytest.raises(OSError, match="too many open files"):
            database._writer.submit([_nothing]).result(10)
    database._writer.submit([_nothing]).result(10)
    database.close()


def test_a_failing_checkpoint_does_not_stop_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a checkpoint raises, later writes are committed."""
    monkeypatch.setattr("handrail.kernel.db.group_writer.CHECKPOINT_BYTES", 0)
    monkeypatch.setattr("filelock.FileLock.acquire", Mock(side_effect=RuntimeError("unexpected")))
    database = Database.open("handrail.db", tmp_path)
    for _ in range(3):
        database._writer.submit([_nothing]).result(10)
    database.close()


def _nothing(conn: Connection) -> None:
    conn.execute(text("SELECT 1"))
