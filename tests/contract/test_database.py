"""The writer and the readers of a store, on every engine."""

import asyncio
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, select, text

import handrail.evals.store.labels
import handrail.server.app
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.jobs import enqueue, jobs
from handrail.kernel.db.schema import REVISIONS, metadata, upgrade
from handrail.kernel.errors import StoreNewer, StoreOlder, StoreReadOnly
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def _keys(conn: Connection) -> list[str]:
    return list(conn.execute(select(jobs.c.key).order_by(jobs.c.key)).scalars())


def _fail(_conn: Connection) -> None:
    raise RuntimeError("failed")


async def test_results_are_in_the_order_of_the_operations(database: Database) -> None:
    """A call returns what each of its operations returned, in order."""
    results = await database.write(lambda _conn: 1, lambda _conn: "two", lambda _conn: None)
    assert results == [1, "two", None]


async def test_a_call_is_all_or_nothing(database: Database) -> None:
    """If one operation raises, the whole call is rolled back and the caller gets the exception."""
    with pytest.raises(RuntimeError, match="failed"):
        await database.write(enqueue("test", "a", {}, NOW), _fail)
    assert await database.read(_keys) == []


async def test_a_failing_call_does_not_affect_others(database: Database) -> None:
    """Of concurrent calls, one that fails does not roll back the others."""
    calls = [database.write(enqueue("test", f"{n:02}", {}, NOW), *([_fail] if n % 3 == 0 else [])) for n in range(12)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [n % 3 == 0 for n in range(12)]
    assert await database.read(_keys) == [f"{n:02}" for n in range(12) if n % 3]


async def test_a_committed_write_is_seen_by_another_connection(database: Database, address: str) -> None:
    """A write that returned is visible to a second connection to the same store."""
    await database.write(enqueue("test", "a", {}, NOW))
    other = Database.open(address)
    try:
        assert await other.read(_keys) == ["a"]
    finally:
        other.close()


async def test_a_read_is_one_snapshot(database: Database) -> None:
    """A read that started before a write does not see it, even in a second query."""
    started, resume = threading.Event(), threading.Event()

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        first = _keys(conn)
        started.set()
        resume.wait()
        return first, _keys(conn)

    reading = asyncio.create_task(database.read(twice))
    await asyncio.to_thread(started.wait)
    await database.write(enqueue("test", "a", {}, NOW))
    resume.set()
    assert await reading == ([], [])
    assert await database.read(_keys) == ["a"]


async def test_a_reader_cannot_write(database: Database) -> None:
    """A read that tries to write raises StoreReadOnly and changes nothing."""
    with pytest.raises(StoreReadOnly):
        await database.read(enqueue("test", "a", {}, NOW))
    assert await database.read(_keys) == []


async def test_concurrent_writes_of_two_databases(database: Database, address: str) -> None:
    """Two open databases of one store that write concurrently lose nothing."""
    other = Database.open(address)
    try:
        calls = [
            writer.write(enqueue("test", f"{name}-{n:02}", {}, NOW))
            for n in range(30)
            for name, writer in (("a", database), ("b", other))
        ]
        await asyncio.gather(*calls)
    finally:
        other.close()
    assert len(await database.read(_keys)) == 60


def test_threads_without_a_loop_may_write(database: Database) -> None:
    """write_now and read_now work without an event loop."""
    assert database.write_now(enqueue("test", "a", {}, NOW)) == [True]
    assert database.read_now(_keys) == ["a"]


def test_the_migrations_create_the_declared_tables(address: str) -> None:
    """The migrated store and the tables that the packages declare do not differ."""
    assert handrail.server.app
    assert handrail.evals.store.labels
    engine = create_engine(store_url(address, Path()))
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    engine.dispose()


def test_upgrading_twice_changes_nothing(address: str) -> None:
    """An upgrade of a store that is up to date keeps its version."""
    assert upgrade(store_url(address, Path())) == (REVISIONS[-1], REVISIONS[-1])


@pytest.mark.parametrize("version", ["9999", "0010"])
def test_an_unknown_version_is_refused(address: str, version: str) -> None:
    """A store of a later version, or from before the first release, is refused with advice."""
    engine = create_engine(store_url(address, Path()))
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    engine.dispose()
    with pytest.raises(StoreNewer, match=r"upgrade Handrail if .*, else name another store"):
        Database.open(address)
    with pytest.raises(StoreNewer):
        upgrade(store_url(address, Path()))


def test_only_sqlite_is_upgraded_automatically(store_url: str) -> None:
    """Opening an empty SQLite file creates its tables; for an empty Postgres the error names the command."""
    if store_url.startswith("sqlite"):
        Database.open(store_url).close()
    else:
        with pytest.raises(StoreOlder, match="handrail db upgrade"):
            Database.open(store_url)
