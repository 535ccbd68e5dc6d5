"""Times have zones and are exact; ids sort in the order of their creation."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.clock import SystemClock, from_unix_ns, unix_ns
from handrail.kernel.ids import new_id

ZONES = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=ZONES)  # noqa: DTZ001 - zones are drawn
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(TIMES)
def test_times_survive_conversion_to_nanoseconds(time: datetime) -> None:
    """A time in any zone is converted to nanoseconds and back without loss, to the microsecond."""
    converted = from_unix_ns(unix_ns(time))
    assert converted == time
    assert converted.tzinfo is UTC


@given(TIMES, TIMES)
def test_nanoseconds_keep_the_order(one: datetime, other: datetime) -> None:
    """The earlier of two times in any zones has the smaller number of nanoseconds."""
    assert (one < other) == (unix_ns(one) < unix_ns(other))


def test_the_system_clock_is_aware() -> None:
    """The system clock returns times in UTC."""
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_ids_of_one_millisecond_are_in_order() -> None:
    """Ten thousand ids of the same millisecond are distinct and in order."""
    ids = [new_id("run", NOW) for _ in range(10_000)]
    assert ids == sorted(set(ids))


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_later_id_sorts_later(first_ms: int, gap_ms: int) -> None:
    """An id that is created a millisecond or more after another sorts after it."""
    one = new_id("run", NOW + timedelta(milliseconds=first_ms))
    assert one < new_id("run", NOW + timedelta(milliseconds=first_ms + gap_ms))
