"""What a forked process begins anew: threads do not survive a fork, and a lock that one of them held stays locked.

Servers such as gunicorn (with `preload_app`) and Celery, and `multiprocessing` by default on Linux before Python 3.14,
fork processes that have used Handrail already. Whoever owns a thread, a lock or a connection declares it here.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol
from weakref import WeakSet

CAN_FORK = hasattr(os, "register_at_fork")
"""False on Windows, where processes are not forked."""


class BegunAnew(Protocol):
    """An object with threads, locks or connections."""

    def begin_anew(self) -> None:
        """Replaces what a forked process cannot use. It neither waits nor closes anything that the parent uses too."""
        ...


_owners: WeakSet[BegunAnew] = WeakSet()


def begin_anew_when_forked(owner: BegunAnew) -> None:
    """Has `owner.begin_anew()` called in every process that this one forks from now on.

    Args:
        owner: The object; it is not kept alive by this.
    """
    _owners.add(owner)


class ForkSafePool(ThreadPoolExecutor):
    """A pool of threads that a forked process begins anew; what was submitted before is the parent's.

    Args:
        max_workers: How many threads it has at most.
        thread_name_prefix: How their names begin.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._arguments = (max_workers, thread_name_prefix)
        begin_anew_when_forked(self)

    def begin_anew(self) -> None:
        """Forgets the threads and the calls that are the parent's."""
        super().__init__(*self._arguments)


def _begin_anew() -> None:
    for owner in list(_owners):
        owner.begin_anew()


if CAN_FORK:
    os.register_at_fork(after_in_child=_begin_anew)
