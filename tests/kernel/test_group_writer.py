"""The write-ahead log of a SQLite store stays small while it is written to."""

import os
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, text

from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import CHECKPOINT_BYTES


def _add(conn: Connection, row: dict[str, str]) -> None:
    conn.execute(text("INSERT INTO prompts VALUES (:hash, :text)"), row)


def test_the_log_is_copied_and_begun_anew(tmp_path: Path) -> None:
    """Writing many times the checkpoint's size leaves a log not much larger than one checkpoint, and loses nothing."""
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
