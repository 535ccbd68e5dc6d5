"""A full disk, a read-only file and a damaged file give clear errors and lose nothing."""

import asyncio
import os
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import Connection, Table, event, func, select

from handrail import OutcomeNotStored, govern
from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import CHECKPOINT_BYTES
from handrail.kernel.db.jobs import enqueue, jobs
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import StoreDamaged, StoreError, StoreFull, StoreReadOnly, StoreUnreachable
from handrail.runs.store.queries import list_runs
from handrail.runs.store.runs import LEASE
from handrail.runs.store.tables import messages, outcomes, runs
from handrail.testing import VirtualClock, sandbox
from handrail.traces.store.summaries import traces

NOW = VirtualClock().now()
NOBODY = 65534


class Disk:
    """Limits a store's size in pages: beyond the limit SQLite fails as on a full disk, with SQLITE_FULL."""

    def __init__(self, database: Database) -> None:
        self.pages = 1_000_000
        self._database = database
        event.listen(database._engine, "checkout", self._limit)

    def fill(self, left: int = 0) -> None:
        """Leaves space for this many more pages."""
        self.pages = self._database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one()) + left

    def free(self) -> None:
        self.pages = 1_000_000

    def _limit(self, connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={self.pages}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open("handrail.db", tmp_path)
    yield opened
    opened.close()


def _write(key: str, size: int = 1) -> Operation[Any]:
    return enqueue("test", key, {"padding": "x" * size}, NOW)


def _keys(conn: Connection) -> list[str]:
    return list(conn.execute(select(jobs.c.key).order_by(jobs.c.key)).scalars())


async def test_on_a_full_disk_a_call_is_not_written_at_all(database: Database) -> None:
    """A call that does not fit raises StoreFull with advice and writes nothing; earlier calls are kept."""
    disk = Disk(database)
    await database.write(_write("before"))
    disk.fill()
    with pytest.raises(StoreFull, match="make room"):
        await database.write(_write("small"), _write("large", 100_000))
    assert await database.read(_keys) == ["before"]


async def test_writes_succeed_again_once_there_is_space(database: Database) -> None:
    """Once there is space again, the same open database can write."""
    disk = Disk(database)
    disk.fill()
    with pytest.raises(StoreFull):
        await database.write(_write("large", 100_000))
    disk.free()
    await database.write(_write("large", 100_000))
    assert await database.read(_keys) == ["large"]


async def test_on_a_full_disk_each_concurrent_call_gets_its_own_result(database: Database) -> None:
    """Of concurrent calls on a full disk, those that returned are stored and those that raised are not."""
    disk = Disk(database)
    disk.fill(left=4)
    calls = [database.write(_write(f"{n:02}", 9_000 if n % 3 else 1)) for n in range(24)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {list, StoreFull}
    assert StoreFull in {type(result) for result in results}
    written = [f"{n:02}" for n, result in enumerate(results) if isinstance(result, list)]
    assert await database.read(_keys) == written


async def test_a_failing_checkpoint_blocks_no_call(database: Database) -> None:
    """If the log is too long and the database file cannot grow, calls still return, and later ones succeed."""
    for n in range(8):
        await database.write(_write(f"{n}", CHECKPOINT_BYTES // 4))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CHECKPOINT_BYTES, hard))
    try:
        calls = [(key, await _write_error(database, key)) for key in (f"limited-{n:02}" for n in range(12))]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any(error is not None for _, error in calls)
    assert await _write_error(database, "last") is None
    written = {key for key, error in calls if error is None}
    assert {key for key in await database.read(_keys) if key.startswith("limited")} == written


async def test_an_unavailable_checkpoint_lock_blocks_no_call(database: Database, tmp_path: Path) -> None:
    """If no process can get the checkpoint lock, calls still succeed."""
    (tmp_path / "handrail.db.lock").mkdir()
    for n in range(2):
        await asyncio.wait_for(database.write(_write(f"{n}", 2 * CHECKPOINT_BYTES)), timeout=30)
    assert await database.read(_keys) == ["0", "1"]


async def _write_error(database: Database, key: str) -> StoreError | None:
    try:
        await asyncio.wait_for(database.write(_write(key, CHECKPOINT_BYTES // 4)), timeout=30)
    except StoreError as error:
        return error
    return None


async def test_an_outcome_that_cannot_be_stored_is_handed_to_the_caller(tmp_path: Path) -> None:
    """A run whose outcome does not fit on the disk raises OutcomeNotStored with the outcome, and the run is kept."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        disk.fill()
        return ModelResponse([TextPart(answer)])

    answer = os.urandom(100_000).hex()
    clock = VirtualClock()
    with sandbox(tmp_path, model=FunctionModel(reply), clock=clock) as runtime:
        disk = Disk(runtime.database)
        with pytest.raises(OutcomeNotStored, match="disk is full") as caught:
            await govern(Agent(), name="support").run("hello", user="u-1")
        assert getattr(caught.value.outcome, "output", None) == answer
        clock.advance(LEASE.total_seconds())
        [run] = runtime.database.read_now(list_runs(clock.now(), tenant=None, agent=None, limit=10, before=None))
        assert run.run_id == caught.value.outcome.facts.run_id
        assert (run.status, run.path) == ("interrupted", "failed")


async def test_a_run_that_cannot_be_stored_does_not_start(tmp_path: Path) -> None:
    """A run whose first commit fails does not reach the model and leaves no outcome, input or trace."""
    called = False

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        nonlocal called
        called = True
        return ModelResponse([TextPart("too late")])

    with sandbox(tmp_path, model=FunctionModel(reply)) as runtime:
        disk = Disk(runtime.database)
        disk.fill()
        # There is space again as soon as the first commit has failed.
        event.listen(runtime.database._engine, "checkin", lambda *_: disk.free())
        with pytest.raises(StoreFull):
            await govern(Agent(), name="support").run(os.urandom(50_000).hex(), user="u-1")
        assert not called
        assert len({runtime.database.read_now(_count(table)) for table in (runs, outcomes, messages, traces)}) == 1


def _count(table: Table) -> Callable[[Connection], int]:
    return lambda conn: conn.execute(select(func.count()).select_from(table)).scalar_one()


@contextmanager
def _unprivileged() -> Iterator[None]:
    """Makes file permissions apply in the block, even if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder with a store, both read-only."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        database = Database.open("handrail.db", folder)
        database.write_now(_write("before"))
        database.close()
        (folder / "handrail.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_file(guarded: Path) -> None:
    """A read-only file in a writable folder raises StoreReadOnly and is not changed."""
    guarded.chmod(0o777)
    before = (guarded / "handrail.db").read_bytes()
    with _unprivileged(), pytest.raises(StoreReadOnly, match="correct its permissions"):
        Database.open("handrail.db", guarded).write_now(_write("after"))
    assert (guarded / "handrail.db").read_bytes() == before


def test_a_read_only_folder(guarded: Path) -> None:
    """A read-only folder raises an error that mentions permissions, for an existing store and for a new one."""
    for name in ("handrail.db", "new.db"):
        with _unprivileged(), pytest.raises((StoreUnreachable, StoreReadOnly), match=r"may you write|permissions"):
            Database.open(name, guarded)
    assert [file.name for file in guarded.iterdir()] == ["handrail.db"]


def test_a_file_that_is_not_a_database_is_not_changed(tmp_path: Path) -> None:
    """A file without a database header raises StoreDamaged with advice and is not changed."""
    garbage = os.urandom(20_000)
    (tmp_path / "handrail.db").write_bytes(garbage)
    with pytest.raises(StoreDamaged, match="not a database; name another store, or move it away"):
        Database.open("handrail.db", tmp_path)
    assert (tmp_path / "handrail.db").read_bytes() == garbage


def test_an_overwritten_page_is_reported(tmp_path: Path) -> None:
    """Overwritten pages of a table raise StoreDamaged with advice on reads and writes, and the file is not changed."""
    store = tmp_path / "handrail.db"
    database = Database.open("handrail.db", tmp_path)
    database.write_now(*(_write(f"{n:03}", 1_000) for n in range(200)))
    database.close()
    damaged = _overwritten(store)
    uses: list[Callable[[Database], object]] = [
        lambda opened: opened.read_now(_keys),
        lambda opened: opened.write_now(_write("100")),
    ]
    for use in uses:
        database = Database.open("handrail.db", tmp_path)
        with pytest.raises(StoreDamaged, match="restore a backup, or move it away"):
            use(database)
        database.close()
        assert store.read_bytes() == damaged


def _overwritten(store: Path) -> bytes:
    """Overwrites the root pages of the jobs table and of its indexes, and returns the file's bytes."""
    with sqlite3.connect(store) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        roots = [row[0] for row in conn.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'jobs'")]
    conn.close()
    pages = bytearray(store.read_bytes())
    for root in roots:
        pages[(root - 1) * size : root * size] = b"\xa5" * size
    store.write_bytes(pages)
    return bytes(pages)
