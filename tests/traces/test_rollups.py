from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.traces.model import Span
from handrail.traces.store.rollups import GRAINS, Stretch, hours, roll, stretches
from tests.traces.samples import MIDNIGHT, span, spans

HOUR, DAY = GRAINS["hour"], GRAINS["day"]
moments = st.integers(MIDNIGHT, MIDNIGHT + 8 * DAY).map(from_unix_ns)
lengths = st.timedeltas(timedelta(0), timedelta(days=8))


def _hours_of(parts: Sequence[Stretch]) -> list[int]:
    return [hour for part in parts for hour in range(part.from_ns, part.to_ns, HOUR)]


@given(moments, lengths)
def test_stretches_cover_the_hours_of_a_range_once(since: datetime, length: timedelta) -> None:
    """Days and hours together cover every hour that the range touches, each once, and no other."""
    until = since + length
    touched = range(unix_ns(since) // HOUR * HOUR, unix_ns(until), HOUR)
    assert _hours_of(stretches(since, until, "day")) == list(touched) == _hours_of(hours(since, until))


@given(moments, lengths)
def test_whole_days_are_read_as_days(since: datetime, length: timedelta) -> None:
    """A range is read in one stretch of days and at most 46 hours, 23 on either side."""
    parts = stretches(since, since + length, "day_all")
    assert all(part.from_ns % DAY == part.to_ns % DAY == 0 for part in parts if part.level == "day_all")
    assert sum(part.level == "day_all" for part in parts) <= 1
    assert len(_hours_of([part for part in parts if part.level == "hour"])) <= 46


@given(st.lists(spans(["acme", "other"])))
def test_every_level_adds_up_to_the_same(found: list[Span]) -> None:
    """Rows of hours, of days, and of days for all tenants or users together have the same sums."""
    rolled = roll(found)
    for rows, width in ((rolled.steps, 7), (rolled.spend, 8)):
        hour, day, day_all = (
            [sum(values) for values in zip(*(row[width:] for row in rows if row[1] == level), strict=True)]
            for level in ("hour", "day", "day_all")
        )
        assert hour == day == day_all


@given(st.lists(spans(["acme"])), st.randoms())
def test_the_order_of_spans_does_not_matter(found: list[Span], random: Random) -> None:
    """Spans in any order add the same rows in the same order."""
    shuffled = list(found)
    random.shuffle(shuffled)
    assert roll(shuffled) == roll(found)


def test_a_span_counts_where_it_began() -> None:
    """A span over midnight counts in the hour and the day of its begin."""
    rolled = roll([span(start_ns=MIDNIGHT - 1, end_ns=MIDNIGHT + DAY)])
    assert {row[1:3] for row in rolled.steps} == {
        ("day_all", MIDNIGHT - DAY),
        ("day", MIDNIGHT - DAY),
        ("hour", MIDNIGHT - HOUR),
    }


def test_only_what_is_paid_for_is_spend() -> None:
    """A tool without cost or tokens is no spend; a model request is, also when it cost nothing."""
    assert roll([span(kind="tool")]).spend == []
    assert {row[8] for row in roll([span(kind="model")]).spend} == {1}
