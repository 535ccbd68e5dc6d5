"""Durations counted in buckets that grow by 5%: small enough to keep forever, and exact to 2.5% for any percentile.

Counts of the same bucket add up, so histograms of hours, tenants and steps merge in any order. The bucket boundaries
and the value that represents a bucket are DDSketch's (Masson, Rim and Lee, 2019, proposition 1).
"""

import math
from collections.abc import Mapping
from fractions import Fraction

Histogram = Mapping[int, int]
"""The number of durations in each bucket."""

GROWTH = 1.05
_LOG_GROWTH = math.log(GROWTH)
_ZERO_BUCKET = -1
"""The bucket of durations of zero, which have no logarithm."""


def bucket_of(duration_ns: int) -> int:
    """The bucket of a duration in nanoseconds: bucket n holds those above 1.05 ** (n - 1) and up to 1.05 ** n."""
    return math.ceil(math.log(duration_ns) / _LOG_GROWTH) if duration_ns > 0 else _ZERO_BUCKET


def bucket_value(bucket: int) -> int:
    """The nanoseconds that represent a bucket: at most 2.5% from any duration in it, rounded to a whole number."""
    return 0 if bucket == _ZERO_BUCKET else round(2 * GROWTH**bucket / (1 + GROWTH))


def percentile(histogram: Histogram, share: Fraction) -> int:
    """The shortest duration, in nanoseconds, that `share` of all (above 0, at most 1) do not exceed: nearest rank.

    0 where there are no durations.
    """
    rank = math.ceil(share * sum(histogram.values()))
    for bucket in sorted(histogram):
        rank -= histogram[bucket]
        if rank <= 0:
            return bucket_value(bucket)
    return 0
