"""The web's own rules as pure functions: rates, places in lists, the waterfall's scale, what forms hold."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.errors import BadInput
from handrail.server.pages.runs import read_fields
from handrail.server.params import read_place, show_place
from handrail.server.rate_limit import Bucket, Rate, take
from handrail.server.view_models.waterfall import WIDTH, as_data, scale_of, waterfall
from handrail.traces.model import Span

SECOND = 10**9
counts = st.integers(0, 10**18 - 1)
names = st.text().filter(str.isprintable)


@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.integers(0, 3 * SECOND), max_size=200))
def test_a_bucket_keeps_its_rate(per_second: int, burst: int, gaps: list[int]) -> None:
    """Over any time no more is served than the burst and what came in since; who waits as told is served."""
    rate, bucket, now, served = Rate(per_second, burst), Bucket(burst, 0), 0, 0
    for gap in gaps:
        now += gap
        bucket, wait = take(bucket, rate, now)
        served += wait == 0
        assert served <= burst + now * per_second / SECOND + 1e-6
        if wait:
            assert take(bucket, rate, now + round(wait * SECOND) + 1)[1] == 0


@given(st.tuples(counts, counts, st.from_regex("[0-9a-f]{1,64}", fullmatch=True), names))
def test_places_survive_an_address(place: tuple[int, int, str, str]) -> None:
    """A place in a list comes back from the text that an address carries."""
    assert read_place(show_place(place)) == place


@given(st.text())
def test_other_texts_are_no_place(text: str) -> None:
    """Whatever stands in an address where a place is expected is a place or nothing, and never an error."""
    found = read_place(text)
    assert found is None or len(found) == 4


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("refund: true\ncategory: billing", {"refund": True, "category": "billing"}),
        ("n: 3", {"n": 3}),
        ("x:", {"x": None}),
    ],
)
def test_fields_are_lines(text: str, fields: dict[str, object]) -> None:
    """A line for each field: text, number, true, false or nothing."""
    assert read_fields(text) == fields


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "a: [1]", "a: 2026-01-01", "a: {b: c}", "1: x", "a: ["])
def test_other_texts_are_no_fields(text: str) -> None:
    """What is not lines of fields is refused."""
    with pytest.raises(BadInput, match="a line for each field"):
        read_fields(text)


def span(number: int, parent: int | None, start: int, end: int, kind: str = "tool") -> Span:
    return Span(
        trace_id="t",
        span_id=f"{number:x}",
        parent_id=None if parent is None else f"{parent:x}",
        kind=kind,  # type: ignore[arg-type]
        name=f"step {number}",
        start_ns=start,
        end_ns=end,
        tenant="acme",
        user="u",
        agent="a",
        run_id="",
    )


spans = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 10**6),
        st.integers(-10, 10**6),
        st.sampled_from(["tool", "model", "wait", "agent"]),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: [span(n, p if p != n else None, s, s + d, k) for n, (p, s, d, k) in enumerate(rows)])


@given(spans)
def test_every_span_is_in_the_waterfall(found: list[Span]) -> None:
    """Whatever the spans, each has one row, within the width, and rows follow their parents."""
    rows = waterfall(found)
    assert sorted(row["id"] for row in rows) == sorted(each.span_id for each in found)
    for row in rows:
        for start, wide in (row["bar"], *row.get("path", ())):
            assert 0 <= start <= start + wide <= WIDTH + 1
    assert rows[0]["depth"] == 0
    assert all(after["depth"] <= before["depth"] + 1 for before, after in itertools.pairwise(rows))


@given(spans, st.lists(st.integers(-10, 2 * 10**6), min_size=2, max_size=5))
def test_the_scale_keeps_the_order(found: list[Span], moments: list[int]) -> None:
    """A later moment never stands before an earlier one."""
    places = [scale_of(found).place(moment) for moment in sorted(moments)]
    assert places == sorted(places)


def test_waiting_for_people_is_drawn_short() -> None:
    """Three days of waiting leave the seconds of work before and after them in sight; work meanwhile is not cut."""
    days = 3 * 86_400 * SECOND
    root = span(0, None, 0, 2 * SECOND, "agent")
    found = [root, span(1, 0, 0, 2 * SECOND), span(2, 0, 2 * SECOND, days, "wait"), span(3, 0, days, days + 2 * SECOND)]
    scale = scale_of(found)
    assert scale.stretch(0, 2 * SECOND)[1] == pytest.approx(WIDTH * 0.475)
    assert scale.stretch(2 * SECOND, days)[1] == pytest.approx(WIDTH * 0.05)
    working = [*found, span(4, 0, 2 * SECOND, days)]
    assert scale_of(working).stretch(2 * SECOND, days)[1] > WIDTH * 0.99


@given(st.text())
def test_data_ends_no_element(text: str) -> None:
    """Text in a page's data cannot end its script element, and comes back as it was."""
    found = str(as_data({"name": text}))
    assert "<" not in found
    assert json.loads(found) == {"name": text}
