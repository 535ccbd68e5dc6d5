"""The range of time that a page looks at, as its address names it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, get_args

from fastapi import Query

from .queries import Range

RangeName = Literal["24h", "7d", "30d", "90d"]
RANGES: tuple[RangeName, ...] = get_args(RangeName)
_LENGTHS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30), "90d": timedelta(days=90)}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

InRange = Annotated[RangeName, Query(alias="range")]


def range_of(name: RangeName, now: datetime) -> Range:
    """The range that ends with the hour or, above a day, the UTC day that it is now."""
    every = timedelta(hours=1) if name == "24h" else timedelta(days=1)
    until = now - (now - _EPOCH) % every + every
    return Range(name=name, since=until - _LENGTHS[name], until=until, every=every)
