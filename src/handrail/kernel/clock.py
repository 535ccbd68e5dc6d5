"""The clock, behind a protocol so that tests can control time."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits; `handrail.testing` has one that stands still until it is moved."""

    def now(self) -> datetime:
        """The wall clock.

        Returns:
            An aware datetime in UTC.
        """
        ...

    def monotonic_ns(self) -> int:
        """A clock that never goes back, for durations.

        Returns:
            Nanoseconds since an arbitrary start.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits by this clock.

        Args:
            seconds: For how long.
        """
        ...


class SystemClock:
    """The system's clocks."""

    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC."""
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start that never go back; for durations."""
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        """Waits for as long by the system's clock."""
        await asyncio.sleep(seconds)


def unix_ns(moment: datetime) -> int:
    """An aware datetime as whole nanoseconds since 1970, exact.

    Raises:
        TypeError: For a datetime without a time zone.
    """
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000


def from_unix_ns(ns: int) -> datetime:
    """Nanoseconds since 1970 as an aware UTC datetime, rounded down to microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)
