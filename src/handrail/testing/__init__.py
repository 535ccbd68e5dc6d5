"""For tests of agents under Handrail: time that stands still until it is moved, and a store of their own.

clock = VirtualClock()
with sandbox(tmp_path, model=FunctionModel(script), clock=clock) as runtime:
    outcome = await support.run("Where is my parcel?", user="u-1")
    clock.advance(3600)
"""

import asyncio
import heapq
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic_ai.models import Model
from sqlalchemy import event

from handrail.config.settings import Settings
from handrail.kernel.db.database import Database
from handrail.runs.runtime import Runtime, use_runtime


class VirtualClock:
    """A clock that only `advance` moves. Sleepers wake in the order of their times, in the loop they sleep in.

    Each reading of `monotonic_ns` is a nanosecond after the one before, so that what happens in order sorts in order.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_ns = 0
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic_ns(self) -> int:
        self._elapsed_ns += 1
        return self._elapsed_ns

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_ns + round(seconds * 1e9), next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many sleep now: a test that moves time on waits until those it is about are among them."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Moves time on, and wakes whoever slept until then."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_ns += round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_ns:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def killed_at_commit(database: Database, kill: int) -> None:
    """Ends this process with SIGKILL at a commit of `database`: number 0 right before the first, 1 right after it, and
    so on. For tests of what a crash leaves behind.
    """
    engine, seen = database._engine, itertools.count()  # noqa: SLF001
    ending = [False]

    def before(*_: Any) -> None:
        if next(seen) == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        ending[0] = True

    def after(*_: Any) -> None:
        if ending[0] and next(seen) == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        ending[0] = False

    def statement(_conn: Any, _cursor: Any, said: str, *_: Any) -> None:
        if said == "COMMIT":
            before()

    if engine.dialect.name == "sqlite":
        event.listen(engine, "before_cursor_execute", statement)
    else:
        event.listen(engine, "commit", before)
    event.listen(engine, "checkin", after)


@contextmanager
def sandbox(
    folder: Path, *, model: Model | None = None, clock: VirtualClock | None = None, store: str = "handrail.db"
) -> Iterator[Runtime]:
    """A runtime of its own in `folder`, current in the block; `model` serves the agents that name none."""
    settings = Settings(base=folder, store=store)
    runtime = Runtime(settings, clock=clock or VirtualClock(), model=model)
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()
