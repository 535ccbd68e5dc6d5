"""SIGINT and SIGTERM of commands that run until they are stopped."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLEANUP_SECONDS = 10.0
"""How long a process may take to end after its grace period."""
_LAST_SECONDS = 3.0
"""How long a process whose work has ended waits for threads that it has left, and for exports of spans."""

_logger = logging.getLogger(__name__)


class ExitDeadline:
    """Ends this process if it does not end by itself, as one that waits for a thread in a tool does not.

    What is committed then is what is kept, as after `kill -9`.

    Args:
        grace_seconds: How long the process's work may go on after the first signal.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._signalled = False
        self._timer: threading.Timer | None = None

    def at_signal(self) -> None:
        """Starts the deadline; a second signal ends the grace period."""
        grace = 0 if self._signalled else self._grace_seconds
        self._signalled = True
        self._start(grace + _CLEANUP_SECONDS, code=1)

    def at_end(self) -> None:
        """Shortens the deadline of a process that was stopped, and whose work has ended as it should."""
        if self._signalled:
            self._start(_LAST_SECONDS, code=0)

    def _start(self, seconds: float, code: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, _leave, [code])
        self._timer.daemon = True
        self._timer.start()


@contextmanager
def on_signals(*calls: Callable[[], None]) -> Iterator[None]:
    """Calls `calls` at every SIGINT and SIGTERM until the block ends.

    Args:
        *calls: Called in the main thread, between any two instructions of it.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        for call in calls:
            call()

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(code: int) -> None:
    _logger.warning("stopped without waiting for the threads that still run")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
