"""A clock for tests that moves only when it is advanced."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class VirtualClock:
    """A clock that only `advance` moves. Sleepers wake in the order they are due, each in its own event loop.

    Args:
        start: The first reading of the wall clock, with a time zone.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_ns = 0
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The wall clock.

        Returns:
            An aware datetime in the time zone of `start`.
        """
        return self._now

    def monotonic_ns(self) -> int:
        """A clock for durations. Each reading adds a nanosecond, so that later readings are always greater.

        Returns:
            Nanoseconds since the clock was made.
        """
        self._elapsed_ns += 1
        return self._elapsed_ns

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock has been advanced far enough.

        Args:
            seconds: How far the clock has to be advanced in all before this returns.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_ns + round(seconds * 1e9), next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many sleepers there are; a test waits for those that it wants to wake before it advances the clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Advances the clock and wakes the sleepers that are due. It may be called from any thread.

        Args:
            seconds: How far to advance.
        """
        self._now += timedelta(seconds=seconds)
        self._elapsed_ns += round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_ns:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
