"""A full disk, a file that may not be written, a damaged file: a clear error, and nothing lost."""

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
from handrail.kernel.db.group_writer import CHECKPOINT_BYTES, Op
from handrail.kernel.db.jobs import enqueue, jobs
from handrail.kernel.errors import StoreDamaged, StoreError, StoreFull, StoreReadOnly, StoreUnreachable
from handrail.runs.store.runs import LEASE, list_runs, messages, outcomes, runs
from handrail.testing import VirtualClock, sandbox
from handrail.traces.store.summaries import traces

NOW = VirtualClock().now()
NOBODY = 65534


class Disk:
    """Room for a store's writer, in pages: SQLite answers beyond it exactly as on a full disk, with SQLITE_FULL."""

    def __init__(self, database: Database) -> None:
        self.pages = 1_000_000
        self._database = database
        event.listen(database._engine, "checkout", self._limit)

    def fill(self, left: int = 0) -> None:
        """Leaves room for this many more pages."""
        self.pages = self._database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one()) + left

    def make_room(self) -> None:
        self.pages = 1_000_000

    def _limit(self, connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={self.pages}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open("handrail.db", tmp_path)
    yield opened
    opened.close()


def _write(key: str, size: int = 1) -> Op:
    return enqueue("test", key, {"filling": "x" * size}, NOW)


def _keys(conn: Connection) -> list[str]:
    return list(conn.execute(select(jobs.c.key).order_by(jobs.c.key)).scalars())


async def test_on_a_full_disk_a_call_is_not_written_at_all(database: Database) -> None:
    """A call that does not fit gets StoreFull with the way out; of its operations none happened, earlier calls did."""
    disk = Disk(database)
    await database.write(_write("before"))
    disk.fill()
    with pytest.raises(StoreFull, match="make room"):
        await database.write(_write("small"), _write("large", 100_000))
    assert await database.read(_keys) == ["before"]


async def test_writes_go_on_once_there_is_room(database: Database) -> None:
    """The full disk is over when there is room again: the same opening writes on."""
    disk = Disk(database)
    disk.fill()
    with pytest.raises(StoreFull):
        await database.write(_write("large", 100_000))
    disk.make_room()
    await database.write(_write("large", 100_000))
    assert await database.read(_keys) == ["large"]


async def test_on_a_full_disk_no_neighbour_is_told_a_lie(database: Database) -> None:
    """Of calls that arrive together on a full disk, those that returned are there and those that raised are not."""
    disk = Disk(database)
    disk.fill(left=4)
    calls = [database.write(_write(f"{n:02}", 9_000 if n % 3 else 1)) for n in range(24)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {list, StoreFull}
    assert StoreFull in {type(result) for result in results}
    written = [f"{n:02}" for n, result in enumerate(results) if isinstance(result, list)]
    assert await database.read(_keys) == written


async def test_a_log_that_cannot_be_copied_stops_nobody(database: Database) -> None:
    """Where the log is too long and the database file may not grow, calls are still answered; later they succeed."""
    for n in range(8):
        await database.write(_write(f"{n}", CHECKPOINT_BYTES // 4))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CHECKPOINT_BYTES, hard))
    try:
        calls = [(key, await _ended(database, key)) for key in (f"limited-{n:02}" for n in range(12))]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any(ended is not None for _, ended in calls)
    assert await _ended(database, "last") is None
    written = {key for key, ended in calls if ended is None}
    assert {key for key in await database.read(_keys) if key.startswith("limited")} == written


async def test_a_lock_that_cannot_be_had_stops_nobody(database: Database, tmp_path: Path) -> None:
    """Where no process can be elected to copy the log, calls are still answered."""
    (tmp_path / "handrail.db.lock").mkdir()
    for n in range(2):
        await asyncio.wait_for(database.write(_write(f"{n}", 2 * CHECKPOINT_BYTES)), timeout=30)
    assert await database.read(_keys) == ["0", "1"]


async def _ended(database: Database, key: str) -> StoreError | None:
    try:
        await asyncio.wait_for(database.write(_write(key, CHECKPOINT_BYTES // 4)), timeout=30)
    except StoreError as error:
        return error
    return None


async def test_an_outcome_that_cannot_be_stored_is_handed_to_the_caller(tmp_path: Path) -> None:
    """A run whose end does not fit on the disk raises OutcomeNotStored with the outcome; the run is not lost."""

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
        [run] = runtime.database.read_now(
            lambda conn: list_runs(conn, clock.now(), tenant=None, agent=None, limit=10, before=None)
        )
        assert run.run_id == caught.value.outcome.facts.run_id
        assert (run.status, run.path) == ("interrupted", "failed")


async def test_a_run_that_could_not_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    """A run whose first commit fails never reaches the model, and leaves no outcome, input or trace without a run."""
    called = False

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        nonlocal called
        called = True
        return ModelResponse([TextPart("too late")])

    with sandbox(tmp_path, model=FunctionModel(reply)) as runtime:
        disk = Disk(runtime.database)
        disk.fill()
        # There is room again as soon as the first commit has failed.
        event.listen(runtime.database._engine, "checkin", lambda *_: disk.make_room())
        with pytest.raises(StoreFull):
            await govern(Agent(), name="support").run(os.urandom(50_000).hex(), user="u-1")
        assert not called
        assert len({runtime.database.read_now(_count(table)) for table in (runs, outcomes, messages, traces)}) == 1


def _count(table: Table) -> Callable[[Connection], int]:
    return lambda conn: conn.execute(select(func.count()).select_from(table)).scalar_one()


@contextmanager
def _unprivileged() -> Iterator[None]:
    """Permissions bind in the block, also where the tests run as root."""
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
    """A store in a folder that everybody may read, and, but for the test's user, nobody may write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        database = Database.open("handrail.db", folder)
        database.write_now(_write("before"))
        database.close()
        (folder / "handrail.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_file_is_said_to_be_one(guarded: Path) -> None:
    """In a folder that may be written, a file that may not gives StoreReadOnly, and keeps what it has."""
    guarded.chmod(0o777)
    before = (guarded / "handrail.db").read_bytes()
    with _unprivileged(), pytest.raises(StoreReadOnly, match="mend its permissions"):
        Database.open("handrail.db", guarded).write_now(_write("after"))
    assert (guarded / "handrail.db").read_bytes() == before


def test_a_read_only_folder_is_said_to_be_in_the_way(guarded: Path) -> None:
    """A folder that may not be written gives an error that asks about it, for an old store and for a new one."""
    for name in ("handrail.db", "new.db"):
        with _unprivileged(), pytest.raises((StoreUnreachable, StoreReadOnly), match=r"may you write|permissions"):
            Database.open(name, guarded)
    assert [file.name for file in guarded.iterdir()] == ["handrail.db"]


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    """Garbage where the header should be gives StoreDamaged with advice, and stays as it is."""
    garbage = os.urandom(20_000)
    (tmp_path / "handrail.db").write_bytes(garbage)
    with pytest.raises(StoreDamaged, match="not a database; name another store, or move it away"):
        Database.open("handrail.db", tmp_path)
    assert (tmp_path / "handrail.db").read_bytes() == garbage


def test_a_page_that_was_overwritten_is_reported(tmp_path: Path) -> None:
    """Garbage in the pages of a table gives StoreDamaged with advice, to readers and to writers, and stays as it is."""
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
    """Puts garbage into every page of the jobs table and of its indexes but the first, and gives the file's bytes."""
    with sqlite3.connect(store) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        roots = [row[0] for row in conn.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'jobs'")]
    conn.close()
    pages = bytearray(store.read_bytes())
    for root in roots:
        pages[(root - 1) * size : root * size] = b"\xa5" * size
    store.write_bytes(pages)
    return bytes(pages)
