"""Time comes from here, so that tests can hold it still and move it."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that only ever grow; for durations."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def unix_ns(moment: datetime) -> int:
    """An aware datetime as whole nanoseconds since 1970 (microsecond resolution), exact in integers."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000


def from_unix_ns(ns: int) -> datetime:
    """Whole nanoseconds since 1970 as an aware UTC datetime, cut to microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)
