"""SQLite has one writer, so a process has one too: calls that arrive together share one transaction and one fsync.

Called by Database only. Each call is a savepoint: it happens whole or not at all, whatever its neighbours do.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from .engine import in_transaction, store_errors

if TYPE_CHECKING:
    from filelock import FileLock

Op = Callable[[Connection], Any]
"""A step of a write: SQL on the connection it is given, and nothing else, since it may be run more than once."""

GROUP_SECONDS = 0.020
"""A group takes no further calls after this long, so that a call waits for at most about two groups."""
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""The size of the write-ahead log at which it is copied into the database file."""


class _Call:
    __slots__ = ("future", "ops", "outcome")

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.future: Future[list[Any]] = Future()
        self.outcome: list[Any] | BaseException = []


class GroupWriter:
    """Runs calls on a thread of its own until closed. `commits` counts the transactions committed so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._wal = f"{engine.url.database}-wal"
        self._checkpointer: FileLock | None = None
        self._copied = 0
        self._closed = False
        self._lock = threading.Lock()
        self.commits = 0
        self._thread = threading.Thread(target=self._work, name="handrail-writer", daemon=True)
        self._thread.start()

    def submit(self, ops: Sequence[Op]) -> Future[list[Any]]:
        """The results of `ops`, in order, once they are on disk; or an op's error, and nothing was written."""
        call = _Call(ops)
        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._calls.put(call)
        return call.future

    def close(self) -> None:
        """Finishes what was submitted, then stops."""
        with self._lock:
            self._closed = True
            self._calls.put(None)
        self._thread.join()
        if self._checkpointer is not None:
            self._checkpointer.release()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            group: list[_Call] = []
            try:
                with store_errors(self._engine.url), self._engine.connect() as conn:
                    self._transaction(conn, call, group)
            except BaseException as error:  # noqa: BLE001 - it belongs to the callers, who get it
                for lost in group:
                    lost.outcome = error
            for done in group:
                if isinstance(done.outcome, BaseException):
                    done.future.set_exception(done.outcome)
                else:
                    done.future.set_result(done.outcome)
            self._checkpoint()

    def _transaction(self, conn: Connection, first: _Call, group: list[_Call]) -> None:
        call: _Call | None = first
        deadline = time.monotonic() + GROUP_SECONDS
        if not _started(first, group):
            return
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            while call is not None:
                self._savepoint(conn, call)
                call = self._next(group) if time.monotonic() < deadline else None
            conn.exec_driver_sql("COMMIT")
            self.commits += 1
        except BaseException:
            if in_transaction(conn):
                conn.exec_driver_sql("ROLLBACK")
            raise

    def _next(self, group: list[_Call]) -> _Call | None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return None
            if call is None:
                self._calls.put(None)
                return None
            if _started(call, group):
                return call

    def _savepoint(self, conn: Connection, call: _Call) -> None:
        conn.exec_driver_sql("SAVEPOINT call")
        try:
            with store_errors(self._engine.url):
                call.outcome = [op(conn) for op in call.ops]
        except BaseException as error:
            # A full disk ends the whole transaction by itself; then nobody's call was written.
            if not in_transaction(conn):
                raise
            call.outcome = error
            conn.exec_driver_sql("ROLLBACK TO call")
        conn.exec_driver_sql("RELEASE call")

    def _checkpoint(self) -> None:
        """Copies the log into the database, in one process only: SQLite before 3.51.3 can damage the file when one
        connection resets the log while another writes."""
        size = self._log_size()
        if size < self._copied:
            # The log was begun anew, and cut to its limit (see engine.py).
            self._copied = 0
        if size - self._copied < CHECKPOINT_BYTES or not self._elected():
            return
        # Everything is safe in the log: a copy that fails, on a full disk say, is tried again after the next group.
        with suppress(DBAPIError), self._engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            self._copied = size

    def _log_size(self) -> int:
        # The last connection of another process may take the log away at any moment.
        try:
            return os.stat(self._wal).st_size
        except OSError:
            return 0

    def _elected(self) -> bool:
        """Whether this process is the one that checkpoints: it is once it gets the lock, and then until it closes.

        Where no lock can be had, in a folder without room or rights say, the log grows and writing goes on.
        """
        from filelock import FileLock, Timeout  # 20 ms that a short-lived process never needs

        if self._checkpointer is None:
            lock = FileLock(f"{self._engine.url.database}.lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
            except (Timeout, OSError):
                return False
            self._checkpointer = lock
        return True


def _started(call: _Call, group: list[_Call]) -> bool:
    if not call.future.set_running_or_notify_cancel():
        return False
    group.append(call)
    return True
