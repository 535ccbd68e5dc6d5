"""What the writer and the readers promise, whatever the store."""

import asyncio
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, select, text

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


def _boom(_conn: Connection) -> None:
    raise RuntimeError("boom")


async def test_results_of_a_call_come_back_in_the_order_of_its_operations(database: Database) -> None:
    """A call returns what each of its operations returned, in order."""
    results = await database.write(lambda _conn: 1, lambda _conn: "two", lambda _conn: None)
    assert results == [1, "two", None]


async def test_a_call_is_all_or_nothing(database: Database) -> None:
    """When one operation raises, what the call wrote before it is gone and the error is the caller's."""
    with pytest.raises(RuntimeError, match="boom"):
        await database.write(enqueue("test", "a", {}, NOW), _boom)
    assert await database.read(_keys) == []


async def test_a_failing_call_leaves_its_neighbours_alone(database: Database) -> None:
    """Of calls that arrive together, one that fails takes none of the others with it."""
    calls = [database.write(enqueue("test", f"{n:02}", {}, NOW), *([_boom] if n % 3 == 0 else [])) for n in range(12)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [n % 3 == 0 for n in range(12)]
    assert await database.read(_keys) == [f"{n:02}" for n in range(12) if n % 3]


async def test_a_committed_write_is_seen_by_another_connection(database: Database, address: str) -> None:
    """What write returned for is there for a second opening of the same store."""
    await database.write(enqueue("test", "a", {}, NOW))
    other = Database.open(address)
    try:
        assert await other.read(_keys) == ["a"]
    finally:
        other.close()


async def test_a_read_is_one_snapshot(database: Database) -> None:
    """A read that began before a write does not see it, even in a second query."""
    began, go_on = threading.Event(), threading.Event()

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        first = _keys(conn)
        began.set()
        go_on.wait()
        return first, _keys(conn)

    reading = asyncio.create_task(database.read(twice))
    await asyncio.to_thread(began.wait)
    await database.write(enqueue("test", "a", {}, NOW))
    go_on.set()
    assert await reading == ([], [])
    assert await database.read(_keys) == ["a"]


async def test_a_reader_cannot_write(database: Database) -> None:
    """A read that tries to write is refused, and changes nothing."""
    with pytest.raises(StoreReadOnly):
        await database.read(enqueue("test", "a", {}, NOW))
    assert await database.read(_keys) == []


async def test_several_openings_write_at_once(database: Database, address: str) -> None:
    """Two openings of one store, writing side by side, lose nothing."""
    other = Database.open(address)
    try:
        calls = [
            opened.write(enqueue("test", f"{name}-{n:02}", {}, NOW))
            for n in range(30)
            for name, opened in (("a", database), ("b", other))
        ]
        await asyncio.gather(*calls)
    finally:
        other.close()
    assert len(await database.read(_keys)) == 60


def test_threads_without_a_loop_may_write(database: Database) -> None:
    """write_now and read_now serve callers that have no event loop."""
    assert database.write_now(enqueue("test", "a", {}, NOW)) == [True]
    assert database.read_now(_keys) == ["a"]


def test_the_migrations_make_the_tables_that_the_slices_declare(address: str) -> None:
    """The migrated store and the declared tables do not differ."""
    assert handrail.server.app
    engine = create_engine(store_url(address, Path()))
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    engine.dispose()


def test_upgrading_twice_changes_nothing(address: str) -> None:
    """An upgrade of a store that is up to date keeps its version."""
    assert upgrade(store_url(address, Path())) == (REVISIONS[-1], REVISIONS[-1])


def test_a_newer_store_is_refused(address: str) -> None:
    """A store that a later version wrote is left alone, with the way out named."""
    engine = create_engine(store_url(address, Path()))
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreNewer, match="upgrade Handrail"):
        Database.open(address)


def test_only_sqlite_is_brought_up_to_date_by_itself(store_url: str) -> None:
    """Opening an empty SQLite file makes its tables; an empty Postgres is refused with the command that does."""
    if store_url.startswith("sqlite"):
        Database.open(store_url).close()
    else:
        with pytest.raises(StoreOlder, match="handrail db upgrade"):
            Database.open(store_url)
