from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.traces.model import Span
from handrail.traces.store.rollups import GRAIN_NS, LevelRange, hour_range, rollup_rows, split_range
from tests.traces.samples import MIDNIGHT, span, spans

HOUR, DAY = GRAIN_NS["hour"], GRAIN_NS["day"]
times = st.integers(MIDNIGHT, MIDNIGHT + 8 * DAY).map(from_unix_ns)
lengths = st.timedeltas(timedelta(0), timedelta(days=8))


def _hours_in(parts: Sequence[LevelRange]) -> list[int]:
    return [hour for part in parts for hour in range(part.from_ns, part.to_ns, HOUR)]


@given(times, lengths)
def test_a_split_range_covers_each_hour_once(since: datetime, length: timedelta) -> None:
    """Days and hours together cover every hour that the range touches, each once, and no other."""
    until = since + length
    touched = range(unix_ns(since) // HOUR * HOUR, unix_ns(until), HOUR)
    assert _hours_in(split_range(since, until, "day")) == list(touched) == _hours_in(hour_range(since, until))


@given(times, lengths)
def test_whole_days_are_read_as_days(since: datetime, length: timedelta) -> None:
    """A range is read as one range of days and at most 46 hours, 23 on either side."""
    parts = split_range(since, since + length, "day_all")
    assert all(part.from_ns % DAY == part.to_ns % DAY == 0 for part in parts if part.level == "day_all")
    assert sum(part.level == "day_all" for part in parts) <= 1
    assert len(_hours_in([part for part in parts if part.level == "hour"])) <= 46


@given(st.lists(spans(["acme", "other"])))
def test_every_level_has_the_same_sums(recorded: list[Span]) -> None:
    """Rows of hours, of days, and of days for all tenants or users together have the same sums."""
    rollups = rollup_rows(recorded)
    for rows, width in ((rollups.steps, 7), (rollups.spend, 8)):
        hour, day, day_all = (
            [sum(values) for values in zip(*(row[width:] for row in rows if row[1] == level), strict=True)]
            for level in ("hour", "day", "day_all")
        )
        assert hour == day == day_all


@given(st.lists(spans(["acme"])), st.randoms())
def test_the_order_of_spans_does_not_matter(recorded: list[Span], random: Random) -> None:
    """Spans in any order add the same rows in the same order."""
    shuffled = list(recorded)
    random.shuffle(shuffled)
    assert rollup_rows(shuffled) == rollup_rows(recorded)


def test_a_span_counts_when_it_started() -> None:
    """A span over midnight counts in the hour and the day in which it started."""
    rows = rollup_rows([span(start_ns=MIDNIGHT - 1, end_ns=MIDNIGHT + DAY)])
    assert {row[1:3] for row in rows.steps} == {
        ("day_all", MIDNIGHT - DAY),
        ("day", MIDNIGHT - DAY),
        ("hour", MIDNIGHT - HOUR),
    }


def test_only_paid_spans_are_spend() -> None:
    """A tool without cost or tokens is not spend; a model request is, also if it cost nothing."""
    assert rollup_rows([span(kind="tool")]).spend == []
    assert {row[8] for row in rollup_rows([span(kind="model")]).spend} == {1}
