"""A store that is in use while the process forks: neither side waits for ever, loses a write or harms the other."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text

from handrail.kernel.db import fork_gate
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parse_store_url
from handrail.kernel.db.jobs import enqueue, jobs
from handrail.kernel.db.operation import Operation
from handrail.kernel.db.schema import upgrade
from handrail.kernel.errors import StoreError
from handrail.kernel.forks import ForkSafePool
from handrail.testing import VirtualClock

from .children import Child, fork_tests, in_child, time_limit

pytestmark = fork_tests

NOW = VirtualClock().now()


@pytest.fixture
def address(tmp_path: Path, store_url: str) -> str:
    upgrade(parse_store_url(store_url, tmp_path))
    return store_url


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    with time_limit(60):
        opened = Database.open(address)
        yield opened
        opened.close()


def _add(database: Database, key: str) -> None:
    database.write_now(enqueue("test", key, {}, NOW))


def _keys(database: Database) -> list[str]:
    return database.read_now(lambda conn: list(conn.execute(select(jobs.c.key).order_by(jobs.c.key)).scalars()))


def _while_under_way(start: Callable[[Callable[[Connection], Any]], Any], work: Callable[[], Any]) -> tuple[Any, Any]:
    """Forks while an operation is under way on another thread; returns the child's result, and the operation's."""
    started = threading.Event()

    def operation(conn: Connection) -> int:
        count = conn.execute(select(func.count()).select_from(jobs)).scalar_one()
        started.set()
        time.sleep(0.2)
        return int(count)

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(start, operation)
        started.wait()
        return in_child(work), under_way.result(20)


def test_a_write_under_way_is_committed_once(database: Database) -> None:
    """A write during which the process forks is committed by the parent, and the child writes its own."""

    def write(operation: Operation[int]) -> int:
        *_, count = database.write_now(enqueue("test", "parent", {}, NOW), operation)
        return int(count)

    assert _while_under_way(write, partial(_add, database, "child")) == (None, 1)
    assert _keys(database) == ["child", "parent"]


def test_a_read_under_way_is_finished(database: Database) -> None:
    """A read during which the process forks has its result in the parent, and the child reads too."""
    _add(database, "before")
    assert _while_under_way(database.read_now, lambda: _keys(database)) == (["before"], 1)


def test_calls_that_wait_at_the_fork_are_run(database: Database) -> None:
    """Of many writes beside many forks, each is committed, and once."""
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(_add, database, f"parent {number:02}") for number in range(20)]
        children = [Child(partial(_add, database, f"child {number}")) for number in range(3)]
        for write in writes:
            write.result(20)
        for child in children:
            child.result()
    assert len(_keys(database)) == 23


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_forked_while_sqlite_stays_in_use_gets_an_error(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If a transaction takes too long to wait for, every call of the child fails at once; the parent goes on."""
    monkeypatch.setattr(fork_gate, "FORK_SECONDS", 0.05)

    def attempt() -> list[str]:
        errors = []
        for call in (
            lambda: _add(database, "child"),
            lambda: _keys(database),
            lambda: Database.open(str(tmp_path / "other.db")),
        ):
            with pytest.raises(StoreError, match="forked while SQLite was in use") as caught:
                call()
            errors.append(caught.value.code)
        database.close()
        return errors

    errors, _ = _while_under_way(database.write_now, attempt)
    assert errors == ["store_error"] * 3
    _add(database, "parent")
    assert _keys(database) == ["parent"]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_fork_inside_an_operation_does_not_wait_for_itself(database: Database) -> None:
    """The forking thread's own transaction is not waited for; the child may not use SQLite, and the parent commits."""

    def attempt() -> str:
        with pytest.raises(StoreError) as caught:
            _keys(database)
        return str(caught.value)

    [message] = database.write_now(lambda _conn: in_child(attempt))
    assert "forked while SQLite was in use" in message
    _add(database, "parent")


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_inherits_nothing_of_sqlite(database: Database) -> None:
    """No file of the store is open in a child that does not use it, so it neither shares nor keeps any lock."""
    _add(database, "parent")
    _keys(database)

    def open_files() -> list[str]:
        files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [os.readlink(file) for file in files if os.path.lexists(file)]

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system has no /proc")
    assert any("handrail.db" in file for file in open_files())
    assert not any("handrail.db" in file for file in in_child(open_files))


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_and_its_parent_checkpoint_in_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock for checkpoints is nobody's after a fork: a child may have it while the parent does not."""
    monkeypatch.setattr("handrail.kernel.db.group_writer.CHECKPOINT_BYTES", 1)

    def checkpoints(key: str) -> bool:
        _add(database, key)
        _add(database, f"{key} again")
        return database._writer._checkpoint_lock is not None  # type: ignore[union-attr]

    assert checkpoints("parent")
    assert in_child(lambda: checkpoints("child"))
    assert checkpoints("parent later")


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
def test_a_child_leaves_the_parents_sessions_alone(database: Database) -> None:
    """The parent's session outlives its children, whatever they do with the store, and none of them keeps it open."""

    def session(conn: Connection) -> int:
        return int(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def use_and_close() -> int:
        number = database.read_now(session)
        database.close()
        return number

    def sockets() -> set[str]:
        files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return {os.readlink(file) for file in files if os.path.lexists(file) and "socket:" in os.readlink(file)}

    before = sockets() if Path("/proc/self/fd").exists() else set()
    parents = database.read_now(session)
    own = (sockets() if before else set()) - before
    in_child(database.close)
    assert in_child(use_and_close) != parents
    assert database.read_now(session) == parents
    assert not own or not own & in_child(sockets)


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
def test_a_transaction_of_postgres_goes_on_while_the_process_forks(database: Database) -> None:
    """The fork does not wait for the parent's transaction, and the child does not end it."""
    started, resume = threading.Event(), threading.Event()

    def add_and_close() -> None:
        _add(database, "child")
        database.close()

    def operation(conn: Connection) -> None:
        enqueue("test", "parent", {}, NOW)(conn)
        started.set()
        resume.wait()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(database.write_now, operation)
        started.wait()
        try:
            in_child(add_and_close)
        finally:
            resume.set()
        writing.result(20)
    assert _keys(database) == ["child", "parent"]


def test_a_closed_store_is_closed_in_children_too(database: Database) -> None:
    """After closing, every call raises an error that says so, in the parent and in its children."""

    def attempt() -> None:
        for call in (lambda: _add(database, "late"), lambda: _keys(database)):
            with pytest.raises(StoreError, match="it was closed by this program"):
                call()

    database.close()
    attempt()
    in_child(attempt)


def test_a_child_begins_its_threads_anew() -> None:
    """A pool whose threads were all busy or idle in the parent runs calls in the child."""
    pool = ForkSafePool(1, "test")
    resume = threading.Event()
    assert pool.submit(int, "1").result(20) == 1
    assert in_child(lambda: pool.submit(int, "2").result(10)) == 2
    blocked = pool.submit(resume.wait)
    assert in_child(lambda: pool.submit(int, "3").result(10)) == 3
    resume.set()
    assert blocked.result(20)
    pool.shutdown()
