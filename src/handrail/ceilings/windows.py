"""Windows of ceilings: a run is one window, a user's is the local day, a tenant's the local month.

    windows_of(now, ZoneInfo("Europe/Berlin"))["user"].end      # when the user's day ends, in UTC

A day starts at its first moment on the local calendar. That is midnight nearly everywhere. Where the clocks go forward
at midnight it is the moment after the gap; where they go back over midnight, the first of the two midnights. A day with
a change of clocks thus has 23 or 25 hours, and every moment is in exactly one day and one month: nobody gets a budget
twice for an hour that the clocks repeat.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from .limits import CeilingScope


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to but not including `end`, both in UTC; None as `end` is never."""

    start: datetime
    end: datetime | None


WHOLE_RUN = Window(datetime(1970, 1, 1, tzinfo=UTC), None)
"""A run's ceilings never reset, so its window is all of time."""


def windows_of(now: datetime, zone: ZoneInfo) -> Mapping[CeilingScope, Window]:
    """The window of each scope at a moment.

    Args:
        now: Aware, in any time zone.
        zone: Whose days and months count.
    """
    return {"run": WHOLE_RUN, "user": day_of(now, zone), "tenant": month_of(now, zone)}


def day_of(now: datetime, zone: ZoneInfo) -> Window:
    """The local calendar day that `now` is in."""
    today = now.astimezone(zone).date()
    return _around(now, [today + timedelta(days) for days in (-1, 0, 1, 2)], zone)


def month_of(now: datetime, zone: ZoneInfo) -> Window:
    """The local calendar month that `now` is in."""
    first = now.astimezone(zone).date().replace(day=1)
    return _around(now, [_months_on(first, months) for months in (-1, 0, 1, 2)], zone)


def _around(now: datetime, days: list[date], zone: ZoneInfo) -> Window:
    """The window between the starts of two neighbours of `days` that `now` is in.

    The local date alone does not tell: clocks that go back over midnight show yesterday's date again for an hour that
    belongs to today.
    """
    starts = sorted({_start(day, zone) for day in days})
    start = max(start for start in starts if start <= now)
    return Window(start, min(start for start in starts if start > now))


def _months_on(first: date, months: int) -> date:
    years, month = divmod(first.month - 1 + months, 12)
    return first.replace(year=first.year + years, month=month + 1)


@functools.lru_cache(maxsize=1_024)
def _start(day: date, zone: ZoneInfo) -> datetime:
    """The first moment whose local date is `day` or, where a zone skips the whole of it, a later one."""
    midnight = datetime.combine(day, time(), zone)
    before, after = midnight.utcoffset(), midnight.replace(fold=1).utcoffset()
    assert before is not None
    assert after is not None
    naive = datetime.combine(day, time(), UTC)
    if after <= before:
        return naive - before
    # Midnight is in a gap and does not exist (PEP 495: fold 0 gives the offset before the gap, fold 1 the one after).
    # The first moment of the day is the change itself.
    return _change(naive - after, naive - before, zone)


def _change(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The moment in (early, late] at which the zone's offset changes, to the second."""
    offset = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late
