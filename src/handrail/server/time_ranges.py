"""The time range of a page or an API request, as the query string names it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, get_args

from fastapi import Query

RangeName = Literal["24h", "7d", "30d", "90d"]
RANGES: tuple[RangeName, ...] = get_args(RangeName)
_LENGTHS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30), "90d": timedelta(days=90)}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RangeQuery = Annotated[RangeName, Query(alias="range")]


@dataclass(frozen=True, kw_only=True)
class TimeRange:
    """A range of time, in buckets of an hour or a day.

    Attributes:
        name: As the query string has it.
        since: The start of the first bucket.
        until: The end of the last bucket, exclusive.
        interval: The length of a bucket: the points of its charts are this far apart.
    """

    name: str
    since: datetime
    until: datetime
    interval: timedelta

    @property
    def bucket(self) -> Literal["hour", "day"]:
        """The length of a bucket as a word."""
        return "hour" if self.interval == timedelta(hours=1) else "day"


def time_range(name: RangeName, now: datetime) -> TimeRange:
    """The range of a name, up to the end of the current hour or, if it is longer than a day, of the current UTC day."""
    interval = timedelta(hours=1) if name == "24h" else timedelta(days=1)
    until = now - (now - _EPOCH) % interval + interval
    return TimeRange(name=name, since=until - _LENGTHS[name], until=until, interval=interval)
