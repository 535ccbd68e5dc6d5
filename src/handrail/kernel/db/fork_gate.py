"""Keeps every thread out of SQLite while the process forks, with all connections closed.

SQLite remembers per process which locks it holds on a file. A forked process would inherit that memory without the
locks, so that a connection which it opens itself would write unprotected; it may not even close an inherited one
(sqlite.org/howtocorrupt.html, 2.6). And a lock inside SQLite that another thread holds at that moment would stay
locked in the child. So a fork waits for the transactions under way, closes the connections, and then lets everybody go
on: each process opens its own. Where that takes too long, the child gets an error in place of SQLite.

Postgres needs no gate: see `Database.begin_anew`.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from sqlalchemy import URL

from handrail.kernel.errors import StoreError
from handrail.kernel.forks import CAN_FORK

from .engine import BUSY_SECONDS, describe_store

_logger = logging.getLogger(__name__)

FORK_SECONDS = BUSY_SECONDS + 5.0
"""How long a fork waits for the transactions under way: longer than one of them may wait for another process."""


class Disconnects(Protocol):
    """An owner of connections that are opened again when they are needed."""

    def disconnect(self) -> None:
        """Closes all connections; none is in use."""
        ...


class _Gate:
    """Counts the threads inside SQLite. A thread may enter again while it is inside."""

    def __init__(self, usable: bool = True) -> None:
        self.usable = usable
        """False in a child that was forked while SQLite was in use."""
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forking = False

    def enter(self, url: URL) -> None:
        thread = threading.get_ident()
        with self._changed:
            while self._forking and thread not in self._inside:
                self._changed.wait()
            if not self.usable:
                raise StoreError(
                    f"store {describe_store(url)}: this process was forked while SQLite was in use, so it cannot use "
                    "SQLite safely; fork before or between uses of the store, or start the process with "
                    'multiprocessing\'s "spawn" method'
                )
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def leave(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
                self._changed.notify_all()

    def shut(self) -> bool:
        """Lets no further thread in and waits until nobody is inside; False if that takes too long."""
        deadline = time.monotonic() + FORK_SECONDS
        with self._changed:
            self._forking = True
            # The forking thread would wait for itself.
            while self._inside and threading.get_ident() not in self._inside:
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            return not self._inside

    def open(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()


_gate = _Gate()
_owners: WeakSet[Disconnects] = WeakSet()
_one_fork = threading.RLock()
_quiet = True


@contextmanager
def inside_store(url: URL) -> Iterator[None]:
    """Makes a fork wait for the block, which uses a store; the block waits for a fork under way.

    Args:
        url: The store. Only SQLite's blocks wait.

    Raises:
        StoreError: This process was forked while SQLite was in use, and cannot use it.
    """
    if url.get_backend_name() != "sqlite":
        yield
        return
    # Kept, since a process that forks inside the block has another gate afterwards.
    gate = _gate
    gate.enter(url)
    try:
        yield
    finally:
        gate.leave()


def disconnect_before_fork(owner: Disconnects) -> None:
    """Has `owner.disconnect()` called before each fork.

    Args:
        owner: The owner of connections to SQLite; it is not kept alive by this.
    """
    _owners.add(owner)


def _before_fork() -> None:
    global _quiet
    _one_fork.acquire()
    _quiet = _gate.shut()
    if not _quiet:
        _logger.warning("forked while SQLite was in use: the child cannot use SQLite")
        return
    try:
        for owner in list(_owners):
            owner.disconnect()
    except Exception:
        _quiet = False
        _logger.exception("forked with a connection to SQLite open: the child cannot use SQLite")


def _after_fork_in_parent() -> None:
    _gate.open()
    _one_fork.release()


def _after_fork_in_child() -> None:
    global _gate, _one_fork
    _gate = _Gate(usable=_quiet and _gate.usable)
    _one_fork = threading.RLock()


if CAN_FORK:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
