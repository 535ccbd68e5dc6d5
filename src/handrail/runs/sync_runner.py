"""The event loop of `run_sync`: one for each thread, kept for all its calls, and never shared with another process.

A forked process inherits the loop's epoll object and its wake-up socket, which are the parent's too: using or closing
the loop would take the parent's events away.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_threads = threading.local()


def run_on_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on this thread's loop, with the caller's context.

    Args:
        coroutine: What to run; no event loop is running in this thread.

    Returns:
        Its result.
    """
    # The runner keeps the context of its first call; a later call needs its own (its `use_runtime`).
    return _runner().run(coroutine, context=copy_context())


class _ThreadLoop:
    """A thread's loop, closed when the thread ends."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.runner = asyncio.Runner(loop_factory=_new_loop)
        self._loop = self.runner.get_loop()

    def __del__(self) -> None:
        if not self._loop.is_running():
            self._loop.close()


def _runner() -> asyncio.Runner:
    # Kept, because a model's HTTP connections belong to the event loop that opened them; those of the parent as well,
    # because what a child still holds is not deleted.
    loops: list[_ThreadLoop] = _threads.__dict__.setdefault("loops", [])
    if not loops or loops[-1].process != os.getpid():
        loops.append(_ThreadLoop())
    return loops[-1].runner


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    process, close = os.getpid(), loop.close

    def close_own() -> None:
        if os.getpid() == process:
            close()

    # A loop closes itself when it is deleted: in a child, that would be the parent's.
    loop.close = close_own  # type: ignore[method-assign]
    return loop
