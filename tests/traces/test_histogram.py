import math
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.store.histogram import bucket_of, bucket_value, percentile

durations = st.integers(0, 100) | st.integers(1, 10**18)
shares = st.fractions(min_value=Fraction(1, 1000), max_value=1)


def near(value: int, exact: int) -> bool:
    """Whether a value is within 2.5% of the exact one, plus rounding."""
    return abs(value - exact) <= exact * 0.025 + 0.5


@given(durations)
def test_a_bucket_represents_its_durations(duration: int) -> None:
    """The value of a duration's bucket is at most 2.5% from the duration."""
    assert near(bucket_value(bucket_of(duration)), duration)


@given(durations, durations)
def test_buckets_keep_the_order_of_durations(one: int, other: int) -> None:
    """A longer duration is in the same bucket or a later one."""
    shorter, longer = sorted((one, other))
    assert bucket_of(shorter) <= bucket_of(longer)


@given(st.lists(durations, min_size=1), shares)
def test_a_percentile_is_near_the_exact_one(values: list[int], share: Fraction) -> None:
    """The percentile from buckets is at most 2.5% from the durations' own nearest-rank percentile."""
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert near(percentile(Counter(map(bucket_of, values)), share), exact)


def test_an_empty_histogram() -> None:
    """A percentile of no durations is 0."""
    assert percentile({}, Fraction(1, 2)) == 0
