"""Times are aware and exact; ids sort as they were made."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.clock import SystemClock, from_unix_ns, unix_ns
from handrail.kernel.ids import new_id

ZONES = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=ZONES)  # noqa: DTZ001 - zones are drawn
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(MOMENTS)
def test_nanoseconds_and_back_is_the_same_moment(moment: datetime) -> None:
    """A moment in any zone survives the way to nanoseconds and back, to the microsecond."""
    back = from_unix_ns(unix_ns(moment))
    assert back == moment
    assert back.tzinfo is UTC


@given(MOMENTS, MOMENTS)
def test_nanoseconds_keep_the_order(one: datetime, other: datetime) -> None:
    """Of two moments the earlier has the smaller number, whatever their zones."""
    assert (one < other) == (unix_ns(one) < unix_ns(other))


def test_the_system_clock_is_aware() -> None:
    """The wall clock gives UTC."""
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_ids_of_one_moment_sort_in_the_order_they_were_made() -> None:
    """Ten thousand ids of the same millisecond are distinct and in order."""
    made = [new_id("run", NOW) for _ in range(10_000)]
    assert made == sorted(set(made))


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_later_id_sorts_later(first_ms: int, gap_ms: int) -> None:
    """An id made a millisecond or more after another sorts after it."""
    one = new_id("run", NOW + timedelta(milliseconds=first_ms))
    assert one < new_id("run", NOW + timedelta(milliseconds=first_ms + gap_ms))
