"""Rate limits: a token bucket for each caller, counted in this process."""

from collections import OrderedDict
from dataclasses import dataclass

from handrail.kernel.clock import Clock

from .errors import RateLimited

_MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`burst` requests at once, and `per_second` in the long run."""

    per_second: int
    burst: int


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The tokens that were left at a time of the monotonic clock."""

    tokens: float
    at_ns: int


def take_token(bucket: TokenBucket, limit: RateLimit, now_ns: int) -> tuple[TokenBucket, float]:
    """Takes a token for one request, if there is one.

    Args:
        bucket: The bucket after the previous request.
        limit: How fast it fills, and how much it holds.
        now_ns: The monotonic clock's time, in nanoseconds.

    Returns:
        The bucket afterwards, and the seconds until a request would be served: 0.0 if this one is.
    """
    tokens = min(limit.burst, bucket.tokens + (now_ns - bucket.at_ns) / 1e9 * limit.per_second)
    if tokens >= 1:
        return TokenBucket(tokens - 1, now_ns), 0.0
    return TokenBucket(tokens, now_ns), (1 - tokens) / limit.per_second


class RateLimiter:
    """A bucket for each caller. When there are too many, the bucket that was unused for longest is dropped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, caller: str, limit: RateLimit) -> None:
        """Counts a request of `caller`. Raises RateLimited."""
        now_ns = self._clock.monotonic_ns()
        bucket, wait = take_token(self._buckets.pop(caller, TokenBucket(limit.burst, now_ns)), limit, now_ns)
        self._buckets[caller] = bucket
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if wait > 0:
            raise RateLimited(wait)
