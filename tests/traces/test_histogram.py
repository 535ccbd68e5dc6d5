import math
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.store.histogram import bucket_of, percentile, value_of

durations = st.integers(0, 100) | st.integers(1, 10**18)
shares = st.fractions(min_value=Fraction(1, 1000), max_value=1)


def near(value: int, exact: int) -> bool:
    """At most 2.5 % off, and rounded."""
    return abs(value - exact) <= exact * 0.025 + 0.5


@given(durations)
def test_a_bucket_stands_for_its_durations(duration: int) -> None:
    """The value of a duration's bucket is at most 2.5 % from the duration."""
    assert near(value_of(bucket_of(duration)), duration)


@given(durations, durations)
def test_buckets_keep_the_order_of_durations(one: int, other: int) -> None:
    """A longer duration is in the same bucket or a later one."""
    shorter, longer = sorted((one, other))
    assert bucket_of(shorter) <= bucket_of(longer)


@given(st.lists(durations, min_size=1), shares)
def test_a_percentile_is_near_the_exact_one(found: list[int], share: Fraction) -> None:
    """The percentile from buckets is at most 2.5 % from the nearest-rank percentile of the durations themselves."""
    exact = sorted(found)[math.ceil(share * len(found)) - 1]
    assert near(percentile(Counter(map(bucket_of, found)), share), exact)


def test_nothing_took_no_time() -> None:
    """A percentile of no durations is 0."""
    assert percentile({}, Fraction(1, 2)) == 0
