"""The database: `write` makes one call's operations atomic and durable, `read` goes around the writer.

results = await db.write(start_run(run), hold(estimate))     # both or neither, on disk when it returns
rows = await db.read(lambda conn: conn.execute(select(runs)).all())
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine

from handrail.kernel.errors import StoreBusy

from .engine import in_transaction, reading_engine, store_errors, store_url, writing_engine
from .group_writer import GroupWriter, Op
from .schema import ensure_current

T = TypeVar("T")
_ATTEMPTS = 5


class Database:
    """One store, opened. Safe to use from several threads and event loops at once."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = writing_engine(url)
        self._reading = reading_engine(self._engine)
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="handrail-db")
        self._writer: GroupWriter | _TransactionWriter
        if self._engine.dialect.name == "sqlite":
            self._writer = GroupWriter(self._engine)
        else:
            self._writer = _TransactionWriter(self._engine, self._pool)

    @classmethod
    def open(cls, store: str, base: Path = Path()) -> "Database":
        """The store at a path or URL, its tables made or brought up to date on SQLite.

        Raises BadSettings for an address that is none, StoreOlder on a Postgres whose tables are missing or old,
        StoreNewer on a store written by a later version, and any other StoreError for what stands in the way.
        """
        url = store_url(store, base)
        ensure_current(url)
        return cls(url)

    @property
    def name(self) -> str:
        """The store's address without its password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def commits(self) -> int:
        """Transactions committed by this object so far."""
        return self._writer.commits

    async def write(self, *ops: Op) -> list[Any]:
        """The results of `ops`, in order, once all of them are durable; if one raises, none of them happened.

        An op may be run again when the database asks for it (a deadlock), so it does nothing but SQL. Cancelling the
        caller does not undo a write that has begun.
        """
        return await asyncio.wrap_future(self._writer.submit(ops))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` finds, in one consistent snapshot; a query that tries to write gets StoreReadOnly."""
        return await asyncio.wrap_future(self._pool.submit(self.read_now, query))

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """`read` for callers without an event loop."""
        with store_errors(self.url), self._reading.connect() as conn:
            if conn.dialect.name == "sqlite":
                conn.exec_driver_sql("BEGIN")
            try:
                return query(conn)
            finally:
                if conn.dialect.name == "sqlite" and in_transaction(conn):
                    conn.exec_driver_sql("ROLLBACK")

    def write_now(self, *ops: Op) -> list[Any]:
        """`write` for callers without an event loop."""
        return self._writer.submit(ops).result()

    def close(self) -> None:
        """Waits for what was submitted, then lets go of the store."""
        self._writer.close()
        self._pool.shutdown()
        self._reading.dispose()
        self._engine.dispose()


class _TransactionWriter:
    """Postgres has many writers: each call is a transaction of its own, run again when the server breaks a deadlock."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._pool = pool
        self._lock = threading.Lock()
        self.commits = 0

    def submit(self, ops: Sequence[Op]) -> Future[list[Any]]:
        return self._pool.submit(self._transaction, ops)

    def close(self) -> None:
        """Nothing of its own to close: the pool finishes what it was given."""

    def _transaction(self, ops: Sequence[Op]) -> list[Any]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with store_errors(self._engine.url), self._engine.begin() as conn:
                    results = [op(conn) for op in ops]
            except StoreBusy:
                if attempt == _ATTEMPTS:
                    raise
            else:
                with self._lock:
                    self.commits += 1
                return results
        raise AssertionError("unreachable")
