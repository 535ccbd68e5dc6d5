"""SQLite has one writer, so a process has one too: calls that arrive together share one transaction and one fsync.

Used by Database only. An fsync takes most of a small write's time, so under load hundreds
of calls a second are possible only if they share it. Each call is a savepoint within the shared
transaction: it is written as a whole or not at all, whatever becomes of its neighbours. A caller gets its result only
after the COMMIT, when it is on disk.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from handrail.kernel.errors import StoreError

from .engine import describe_store, in_transaction, store_errors
from .fork_gate import inside_store
from .operation import Operation

if TYPE_CHECKING:
    from filelock import FileLock

_logger = logging.getLogger(__name__)

GROUP_SECONDS = 0.020
"""A transaction takes no further calls after this long, so that a call waits for about two transactions at most: the
one under way when it arrives, and its own."""
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""How much the write-ahead log grows before it is copied into the database file."""


class _Call:
    """The operations of one `write`, and what became of them."""

    __slots__ = ("future", "operations", "outcome")

    def __init__(self, operations: Sequence[Operation[Any]]) -> None:
        self.operations = operations
        self.future: Future[list[Any]] = Future()
        self.outcome: list[Any] | BaseException = []


class GroupWriter:
    """Runs calls on a thread of its own until closed. `commits` counts the transactions committed so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._wal = f"{engine.url.database}-wal"
        self._checkpoint_lock: FileLock | None = None
        self._logged = set[str]()
        self._checkpointed_bytes = 0
        self._closed = False
        self._lock = threading.Lock()
        self.commits = 0
        self._thread = threading.Thread(target=self._work, name="handrail-writer", daemon=True)
        self._thread.start()

    def submit(self, operations: Sequence[Operation[Any]]) -> Future[list[Any]]:
        """Queues a call.

        Args:
            operations: SQL to run in this order; either all of it is written or nothing.

        Returns:
            The results in the same order, once they are on disk; or the error of the operation that failed.

        Raises:
            StoreError: If the writer is closed.
        """
        call = _Call(operations)
        with self._lock:
            # A call that no thread takes would wait for ever.
            if self._closed or not self._thread.is_alive():
                raise StoreError(f"store {describe_store(self._engine.url)}: its writer is closed; nothing was written")
            self._calls.put(call)
        return call.future

    def close(self) -> None:
        """Finishes what was submitted, then stops."""
        with self._lock:
            self._closed = True
            self._calls.put(None)
        self._thread.join()
        self.release_checkpoint_lock()

    def release_checkpoint_lock(self) -> None:
        """Lets another process checkpoint. Called between transactions only."""
        if self._checkpoint_lock is not None:
            self._checkpoint_lock.release()
            self._checkpoint_lock = None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            group: list[_Call] = []
            if not _begin(call, group):
                continue
            url = self._engine.url
            try:
                with inside_store(url), store_errors(url), self._engine.connect() as conn:
                    self._transaction(conn, call, group)
            except BaseException as error:  # noqa: BLE001 - it belongs to the callers, who get it
                # The transaction as a whole failed: no call of the group was written, also none that had gone well.
                for member in group:
                    member.outcome = error
            for member in group:
                if isinstance(member.outcome, BaseException):
                    member.future.set_exception(member.outcome)
                else:
                    member.future.set_result(member.outcome)
            self._checkpoint()

    def _transaction(self, conn: Connection, first: _Call, group: list[_Call]) -> None:
        """Runs `first` and what else arrives while the transaction is open, which joins the group."""
        call: _Call | None = first
        deadline = time.monotonic() + GROUP_SECONDS
        # IMMEDIATE takes the write lock now. A transaction that began as a reader would get SQLITE_BUSY, without any
        # waiting, at its first write if another process had written meanwhile.
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
        """The next call that waits already, begun; None where the group is to be committed."""
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return None
            if call is None:
                # The request to stop is for `_work`, after this group.
                self._calls.put(None)
                return None
            if _begin(call, group):
                return call

    def _savepoint(self, conn: Connection, call: _Call) -> None:
        conn.exec_driver_sql("SAVEPOINT call")
        try:
            with store_errors(self._engine.url):
                call.outcome = [operation(conn) for operation in call.operations]
        except BaseException as error:
            # A full or failing disk ends the whole transaction, savepoints included: nobody's call was written.
            if not in_transaction(conn):
                raise
            call.outcome = error
            conn.exec_driver_sql("ROLLBACK TO call")
        conn.exec_driver_sql("RELEASE call")

    def _checkpoint(self) -> None:
        """Copies the log into the database file, in one process only and between transactions.

        SQLite's automatic checkpoints are off (see engine.py): before 3.51.3 it can damage the file when one connection
        resets the log while another writes. PASSIVE waits for nobody: it copies what no reader needs any more.
        """
        size = self._log_size()
        if size < self._checkpointed_bytes:
            # The log was begun anew, and cut to its limit (see engine.py).
            self._checkpointed_bytes = 0
        if size - self._checkpointed_bytes < CHECKPOINT_BYTES:
            return
        # Everything is safe in the log: a checkpoint that fails, on a full disk say, is tried again after the next
        # transaction. Whatever the error is, the thread goes on: without it, every later call would fail.
        url = self._engine.url
        try:
            with inside_store(url):
                if not self._holds_checkpoint_lock():
                    return
                with store_errors(url), self._engine.connect() as conn:
                    conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            self._checkpointed_bytes = size
        except Exception as error:  # noqa: BLE001 - see above
            _logger.warning("checkpoint failed, trying again: %s", error, extra={"store": url.database})

    def _log_size(self) -> int:
        # The last connection of another process may remove the log at any moment.
        try:
            return os.stat(self._wal).st_size
        except OSError:
            return 0

    def _holds_checkpoint_lock(self) -> bool:
        """Whether this process is the one that checkpoints: it is once it gets the lock, and then until it closes or
        forks: a child would share the lock.

        Where no lock can be had, in a directory without space or permission for instance, the log grows and writing
        goes on.
        """
        from filelock import FileLock, Timeout  # 20 ms that a short-lived process never needs

        if self._checkpoint_lock is not None:
            return True
        lock = FileLock(f"{self._engine.url.database}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            self._log_once(logging.INFO, "another process checkpoints the store")
            return False
        except OSError as error:
            self._log_once(logging.WARNING, "no checkpoint lock, so the write-ahead log grows: %s", error)
            return False
        self._log_once(logging.INFO, "this process checkpoints the store")
        self._checkpoint_lock = lock
        return True

    def _log_once(self, level: int, message: str, *args: object) -> None:
        # The lock is tried again after every transaction, and may be refused for one reason first and then for another.
        if message not in self._logged:
            self._logged.add(message)
            _logger.log(level, message, *args, extra={"store": self._engine.url.database})


def _begin(call: _Call, group: list[_Call]) -> bool:
    """Adds a call to its group; False for one that its caller cancelled while it waited."""
    if not call.future.set_running_or_notify_cancel():
        return False
    group.append(call)
    return True
