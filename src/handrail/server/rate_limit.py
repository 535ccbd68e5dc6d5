"""How fast a caller may ask: a token bucket each, on the clock."""

from collections import OrderedDict
from dataclasses import dataclass

from handrail.kernel.clock import Clock

from .errors import RateLimited

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, and `per_second` in the long run."""

    per_second: int
    burst: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The tokens that were left at a moment."""

    tokens: float
    at_ns: int


def take(bucket: Bucket, rate: Rate, now_ns: int) -> tuple[Bucket, float]:
    """The bucket after a request, and the seconds until one would be served: 0.0 where this one is."""
    filled = min(rate.burst, bucket.tokens + (now_ns - bucket.at_ns) / 1e9 * rate.per_second)
    if filled >= 1:
        return Bucket(filled - 1, now_ns), 0.0
    return Bucket(filled, now_ns), (1 - filled) / rate.per_second


class Buckets:
    """This process's buckets, one a caller; of callers not heard of for long none is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, caller: str, rate: Rate) -> None:
        """Counts a request of `caller`. Raises RateLimited."""
        now_ns = self._clock.monotonic_ns()
        bucket, wait = take(self._buckets.pop(caller, Bucket(rate.burst, now_ns)), rate, now_ns)
        self._buckets[caller] = bucket
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if wait > 0:
            raise RateLimited(wait)
