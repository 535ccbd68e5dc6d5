"""Forks the test's own process, as servers with worker processes do."""

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

fork_tests = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
"""For tests that fork: Python 3.12 and later warn that threads do not survive it, which is what they test."""

TIMEOUT_S = 20.0


def _fork() -> int:
    """`os.fork`, again while filelock refuses it: another thread is taking or giving back the checkpoint lock."""
    while True:
        try:
            return os.fork()
        except RuntimeError as error:
            if "filelock" not in str(error):
                raise


class Child:
    """A forked process that runs a function and then ends without any clean-up."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reader, writer = os.pipe()
        self.pid = _fork()
        if self.pid == 0:
            try:
                result = (True, work())
            except BaseException:  # noqa: BLE001 - the test reports it
                result = (False, traceback.format_exc())
            os.write(writer, pickle.dumps(result))
            os._exit(0)
        os.close(writer)

    def result(self) -> Any:
        """What the function returned; the test fails if it raised, hung or died."""
        ready, _, _ = select.select([self._reader], [], [], TIMEOUT_S)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        with os.fdopen(self._reader, "rb") as pipe:
            content = pipe.read()
        os.waitpid(self.pid, 0)
        assert content, "the child hung" if not ready else "the child died"
        succeeded, value = pickle.loads(content)
        assert succeeded, value
        return value


def in_child(work: Callable[[], Any]) -> Any:
    """The result of a function in a forked process."""
    return Child(work).result()


@contextmanager
def time_limit(seconds: float = TIMEOUT_S) -> Iterator[None]:
    """Fails the test if the block hangs."""

    def late(*_: object) -> None:
        raise TimeoutError(f"still not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
