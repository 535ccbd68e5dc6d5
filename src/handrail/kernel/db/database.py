"""The database: `write` makes one call's operations atomic and durable, `read` goes around the writer.

    results = await db.write(start(run), hold(request))     # both or neither, on disk when it returns
    run = await db.read(load_run(run_id, now))

`operation.py` says what an operation is.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import URL, Engine, event

from handrail.kernel.errors import StoreBusy, StoreError
from handrail.kernel.forks import begin_anew_when_forked

from .engine import (
    describe_store,
    detach_sockets,
    in_transaction,
    reading_engine,
    store_errors,
    store_url,
    writing_engine,
)
from .fork_gate import disconnect_before_fork, inside_store
from .group_writer import GroupWriter
from .operation import Operation
from .schema import ensure_current

_logger = logging.getLogger(__name__)

T = TypeVar("T")
_ATTEMPTS = 5


class Database:
    """One store, opened. Safe to use from several threads and event loops at once.

    A process that is forked from this one may use it too: it opens the store anew, with threads and connections of its
    own. What was submitted before the fork is the parent's.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._closed = False
        self._connections: WeakSet[Any] = WeakSet()
        """The connections to Postgres that this process opened."""
        self._inherited: list[object] = []
        """What the parent uses, kept so that nothing of it is closed here."""
        self._open()
        begin_anew_when_forked(self)
        if url.get_backend_name() == "sqlite":
            disconnect_before_fork(self)

    def _open(self) -> None:
        self._stale = False
        self._engine = writing_engine(self.url)
        self._reading = reading_engine(self._engine)
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="handrail-db")
        self._writer: GroupWriter | _TransactionWriter
        if self._engine.dialect.name == "sqlite":
            self._writer = GroupWriter(self._engine)
        else:
            event.listen(self._engine, "connect", lambda connection, _record: self._connections.add(connection))
            self._writer = _TransactionWriter(self._engine, self._pool)

    @classmethod
    def open(cls, store: str, base: Path = Path()) -> "Database":
        """Opens the store at a path or URL; on SQLite its tables are created or brought up to date.

        Args:
            store: A path, `sqlite:///path` or `postgresql://...`.
            base: The directory that a relative path is relative to.

        Raises:
            BadSettings: If the address is not valid.
            StoreOlder: If the tables of a Postgres store are missing or old.
            StoreNewer: If the tables are of a version that this code does not know.
            StoreError: For everything else that stands in the way.
        """
        url = store_url(store, base)
        ensure_current(url)
        return cls(url)

    @property
    def name(self) -> str:
        """The store's address without its password."""
        return describe_store(self.url)

    @property
    def commits(self) -> int:
        """Transactions committed by this object in this process so far."""
        return 0 if self._stale else self._writer.commits

    async def write(self, *operations: Operation[Any]) -> list[Any]:
        """Runs operations as one: if one raises, none of them happened.

        An operation may be run again when the database asks for it (a deadlock), so it does nothing but SQL. Cancelling
        the caller does not undo a write that has begun.

        Args:
            *operations: What to run, in this order.

        Returns:
            Their results, in order, once all of them are durable.

        Raises:
            StoreError: If the store could not do it, or was closed. Whatever else an operation raises is passed on.
        """
        return await asyncio.wrap_future(self._submit(operations))

    async def read(self, query: Operation[T]) -> T:
        """Runs an operation that only reads, in one consistent snapshot.

        Args:
            query: What to run. It returns values rather than an iterator, since the snapshot ends with it.

        Returns:
            Its result.

        Raises:
            StoreReadOnly: If it tries to write.
            StoreError: If the store could not do it, or was closed. Whatever else the operation raises is passed on.
        """
        with self._lock:
            self._ensure_open()
            reading = self._pool.submit(self._read, query)
        return await asyncio.wrap_future(reading)

    def read_now(self, query: Operation[T]) -> T:
        """`read` for callers without an event loop."""
        with self._lock:
            self._ensure_open()
        return self._read(query)

    def _read(self, query: Operation[T]) -> T:
        with inside_store(self.url), store_errors(self.url), self._reading.connect() as conn:
            if conn.dialect.name == "sqlite":
                conn.exec_driver_sql("BEGIN")
            try:
                return query(conn)
            finally:
                if conn.dialect.name == "sqlite" and in_transaction(conn):
                    conn.exec_driver_sql("ROLLBACK")

    def write_now(self, *operations: Operation[Any]) -> list[Any]:
        """`write` for callers without an event loop."""
        return self._submit(operations).result()

    def _submit(self, operations: Sequence[Operation[Any]]) -> Future[list[Any]]:
        with self._lock:
            self._ensure_open()
            return self._writer.submit(operations)

    def _ensure_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self.name}: it was closed by this program; open a new Runtime")
        if self._stale:
            with inside_store(self.url):
                self._open()

    def close(self) -> None:
        """Finishes what was submitted, then closes every connection."""
        with self._lock:
            self._closed = True
            if self._stale:
                return
        self._writer.close()
        self._pool.shutdown()
        with inside_store(self.url):
            self.disconnect()

    def disconnect(self) -> None:
        """Closes the connections that nobody uses; they are opened again when they are needed."""
        if self._stale:
            return
        if isinstance(self._writer, GroupWriter):
            self._writer.release_checkpoint_lock()
        self._reading.dispose()
        self._engine.dispose()

    def begin_anew(self) -> None:
        """In a forked process: leaves to the parent what it uses. The store is opened anew when it is needed."""
        self._lock = threading.Lock()
        if not self._stale:
            self._inherited += [self._engine, self._reading, self._pool, self._writer]
        detach_sockets(self._connections)
        self._connections = WeakSet()
        self._stale = True


class _TransactionWriter:
    """Postgres has many writers: each call is a transaction of its own, run again when the server breaks a deadlock."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._pool = pool
        self._lock = threading.Lock()
        self.commits = 0

    def submit(self, operations: Sequence[Operation[Any]]) -> Future[list[Any]]:
        return self._pool.submit(self._transaction, operations)

    def close(self) -> None:
        """Nothing to close: the pool finishes what it was given."""

    def _transaction(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with store_errors(self._engine.url), self._engine.begin() as conn:
                    results = [operation(conn) for operation in operations]
            except StoreBusy:
                if attempt == _ATTEMPTS:
                    raise
                _logger.info("transaction retried after a conflict", extra={"attempt": attempt})
            else:
                with self._lock:
                    self.commits += 1
                return results
        raise AssertionError("unreachable")
