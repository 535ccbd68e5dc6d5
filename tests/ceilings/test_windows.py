"""Days and months of a time zone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handrail.ceilings.windows import Window, day_of, month_of, windows_of

ZONES = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(10**13, 38 * 10**14).map(lambda us: EPOCH + timedelta(microseconds=us))
HOUR = timedelta(hours=1)


@st.composite
def _zones_and_times(draw: st.DrawFn) -> tuple[ZoneInfo, datetime]:
    """A zone and a time, half of the time within two days of a change of its UTC offset."""
    zone, time = draw(ZONES), draw(TIMES)
    if draw(st.booleans()):
        offset = time.astimezone(zone).utcoffset()
        days = (time + timedelta(days) for days in range(1, 400))
        changed = next((day for day in days if day.astimezone(zone).utcoffset() != offset), time)
        time = changed - draw(st.integers(-48 * 60, 48 * 60)) * timedelta(minutes=1)
    return zone, time


ZONES_AND_TIMES = _zones_and_times()


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _assert_contiguous(of: Callable[[datetime, ZoneInfo], Window], now: datetime, zone: ZoneInfo) -> None:
    window = of(now, zone)
    assert window.end is not None
    assert window.start <= now < window.end
    last = window.end - timedelta(microseconds=1)
    assert of(window.start, zone) == of(last, zone) == window
    assert of(window.end, zone).start == window.end
    assert of(window.start - timedelta(microseconds=1), zone).end == window.start


@given(ZONES_AND_TIMES)
@example((ZoneInfo("America/Sao_Paulo"), _utc("2017-10-15T03:00")))
@example((ZoneInfo("America/Havana"), _utc("2026-11-01T04:30")))
@example((ZoneInfo("Pacific/Apia"), _utc("2011-12-30T10:30")))
@example((ZoneInfo("America/Toronto"), _utc("2006-10-29T05:30")))
@example((ZoneInfo("America/St_Johns"), _utc("2006-10-29T02:15")))
def test_days_are_contiguous(zone_and_time: tuple[ZoneInfo, datetime]) -> None:
    """Every time is in exactly one day, and a day starts when the previous one ends."""
    zone, now = zone_and_time
    _assert_contiguous(day_of, now, zone)


@given(ZONES_AND_TIMES)
@example((ZoneInfo("Pacific/Kwajalein"), _utc("1993-08-21T12:00")))
@example((ZoneInfo("Pacific/Kiritimati"), _utc("1995-01-01T09:00")))
@example((ZoneInfo("America/St_Johns"), _utc("1992-11-01T02:15")))
def test_months_are_contiguous(zone_and_time: tuple[ZoneInfo, datetime]) -> None:
    """Every time is in exactly one month, and a month starts when the previous one ends."""
    zone, now = zone_and_time
    _assert_contiguous(month_of, now, zone)


@given(ZONES_AND_TIMES)
def test_a_window_begins_with_its_date(zone_and_time: tuple[ZoneInfo, datetime]) -> None:
    """The date changes at the start of a day, and the month at the start of a month."""
    zone, now = zone_and_time
    day = day_of(now, zone).start
    before = day - timedelta(microseconds=1)
    assert day.astimezone(zone).date() > before.astimezone(zone).date()
    month = month_of(now, zone).start
    earlier = month - timedelta(microseconds=1)
    assert month.astimezone(zone).date().replace(day=1) > earlier.astimezone(zone).date().replace(day=1)


@given(ZONES_AND_TIMES)
def test_a_day_lies_in_one_month(zone_and_time: tuple[ZoneInfo, datetime]) -> None:
    """A month begins and ends with a day."""
    zone, now = zone_and_time
    day, month = day_of(now, zone), month_of(now, zone)
    assert day.end is not None
    assert month.end is not None
    assert month.start <= day.start < day.end <= month.end


@pytest.mark.parametrize(
    ("zone", "noon", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T10:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T11:00", "2026-10-24T22:00", 25),
        ("Europe/Berlin", "2026-06-01T10:00", "2026-05-31T22:00", 24),
        ("America/Sao_Paulo", "2017-10-15T14:00", "2017-10-15T03:00", 23),
        ("America/Havana", "2026-11-01T17:00", "2026-11-01T04:00", 25),
        ("Pacific/Apia", "2011-12-31T00:00", "2011-12-30T10:00", 24),
        ("Australia/Lord_Howe", "2026-04-05T02:00", "2026-04-04T13:00", 24.5),
        ("Asia/Kathmandu", "2026-06-01T06:00", "2026-05-31T18:15", 24),
    ],
)
def test_known_days(zone: str, noon: str, start: str, hours: float) -> None:
    """Days with a clock change, also at midnight, have the start and length of the zone's history."""
    window = windows_of(_utc(noon), ZoneInfo(zone))["user"]
    assert window == Window(_utc(start), _utc(start) + hours * HOUR)


@pytest.mark.parametrize(
    ("zone", "now", "start", "end"),
    [
        ("UTC", "2026-01-31T23:59:59.999999", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("Asia/Tokyo", "2026-12-31T15:00", "2026-12-31T15:00", "2027-01-31T15:00"),
        ("America/New_York", "2026-11-15T12:00", "2026-11-01T04:00", "2026-12-01T05:00"),
    ],
)
def test_known_months(zone: str, now: str, start: str, end: str) -> None:
    """Months begin at local midnight of their first day."""
    assert windows_of(_utc(now), ZoneInfo(zone))["tenant"] == Window(_utc(start), _utc(end))


@given(ZONES_AND_TIMES)
def test_a_run_has_one_window(zone_and_time: tuple[ZoneInfo, datetime]) -> None:
    """A run's window is the same at all times and has no end."""
    zone, now = zone_and_time
    assert windows_of(now, zone)["run"] == Window(_utc("1970-01-01"), None)
