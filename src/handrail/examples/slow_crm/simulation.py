"""Time that passes only while everybody waits, so that seconds of waiting take none."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from handrail.testing import VirtualClock

T = TypeVar("T")

_SETTLING = 200
"""Turns of the event loop in which whoever was woken gets to where it waits again."""

IN_A_ROW = (1, 1, 1, 1, 1)
SIDE_BY_SIDE = (4, 3, 2, 1, 1)
"""How many wait at once, before each time that one of them is done."""


class Simulation:
    """A clock, and the waiting that moves it."""

    def __init__(self) -> None:
        self.clock = VirtualClock(datetime.now(UTC))
        self._elapsed = 0.0
        self._due: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Waits by the simulated clock."""
        self._due.append(self._elapsed + seconds)
        await self.clock.sleep(seconds)

    async def run(self, work: Coroutine[Any, Any, T], at_once: Sequence[int]) -> T:
        """The result of `work`. Time moves on to the next who is done once as many wait as `at_once` says."""
        task = asyncio.ensure_future(work)
        for waiting in at_once:
            while len(self._due) < waiting and not task.done():
                await _turns(1)
            await _turns(_SETTLING)
            if self._due:
                self._move_on()
        return await task

    def _move_on(self) -> None:
        due = min(self._due)
        self.clock.advance(due - self._elapsed)
        self._elapsed = due
        self._due = [each for each in self._due if each > due]


async def _turns(count: int) -> None:
    """Lets everybody else have so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)
