"""Simulated time: it passes only while every task waits, so seconds of waiting take no time."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from handrail.testing import VirtualClock

T = TypeVar("T")

_TURNS_TO_SETTLE = 200
"""Turns of the event loop after which every task that was woken waits again."""

SEQUENTIAL = (1, 1, 1, 1, 1)
PARALLEL = (4, 3, 2, 1, 1)
"""How many tasks sleep at the same time before each wake-up."""


class Simulation:
    """A virtual clock that advances by itself once enough tasks sleep."""

    def __init__(self) -> None:
        self.clock = VirtualClock(datetime.now(UTC))
        self._elapsed = 0.0
        self._due: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Waits by the simulated clock."""
        self._due.append(self._elapsed + seconds)
        await self.clock.sleep(seconds)

    async def run(self, work: Coroutine[Any, Any, T], sleepers: Sequence[int]) -> T:
        """Runs `work` and returns its result.

        Args:
            work: The coroutine to run; it waits by calling `sleep`.
            sleepers: For each wake-up in turn, how many tasks have to sleep before the clock advances to it.
        """
        task = asyncio.ensure_future(work)
        for count in sleepers:
            while len(self._due) < count and not task.done():
                await _yield_to_others(1)
            await _yield_to_others(_TURNS_TO_SETTLE)
            if self._due:
                self._advance()
        return await task

    def _advance(self) -> None:
        due = min(self._due)
        self.clock.advance(due - self._elapsed)
        self._elapsed = due
        self._due = [wake_up for wake_up in self._due if wake_up > due]


async def _yield_to_others(count: int) -> None:
    """Lets all other tasks run for `count` turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)
