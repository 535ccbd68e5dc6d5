"""The server's pure functions: rate limits, cursors, the waterfall's scale, form fields."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.errors import BadInput
from handrail.server.pages.runs import read_fields
from handrail.server.params import decode_cursor, encode_cursor
from handrail.server.rate_limit import RateLimit, TokenBucket, take_token
from handrail.server.view_models.waterfall import WIDTH, json_for_script, time_scale, waterfall
from handrail.traces.model import Span

SECOND = 10**9
counts = st.integers(0, 10**18 - 1)
names = st.text().filter(str.isprintable)


@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.integers(0, 3 * SECOND), max_size=200))
def test_a_token_bucket_keeps_its_limit(per_second: int, burst: int, gaps: list[int]) -> None:
    """No more is served than burst and refill allow; a client that waits as long as it was asked to is served."""
    rate, bucket, now, served = RateLimit(per_second, burst), TokenBucket(burst, 0), 0, 0
    for gap in gaps:
        now += gap
        bucket, wait = take_token(bucket, rate, now)
        served += wait == 0
        assert served <= burst + now * per_second / SECOND + 1e-6
        if wait:
            assert take_token(bucket, rate, now + round(wait * SECOND) + 1)[1] == 0


@given(st.tuples(counts, counts, st.from_regex("[0-9a-f]{1,64}", fullmatch=True), names))
def test_cursors_survive_a_url(cursor: tuple[int, int, str, str]) -> None:
    """A cursor is decoded to what was encoded."""
    assert decode_cursor(encode_cursor(cursor)) == cursor


@given(st.text())
def test_any_text_as_a_cursor(text: str) -> None:
    """Any text is decoded to a cursor or None, and never raises."""
    cursor = decode_cursor(text)
    assert cursor is None or len(cursor) == 4


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("refund: true\ncategory: billing", {"refund": True, "category": "billing"}),
        ("n: 3", {"n": 3}),
        ("x:", {"x": None}),
    ],
)
def test_fields_are_read_from_lines(text: str, fields: dict[str, object]) -> None:
    """Each line gives a field a text, a number, true, false or null."""
    assert read_fields(text) == fields


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "a: [1]", "a: 2026-01-01", "a: {b: c}", "1: x", "a: ["])
def test_invalid_fields_are_refused(text: str) -> None:
    """Text that is not one scalar field per line is refused."""
    with pytest.raises(BadInput, match="one line for each field"):
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
def test_every_span_is_in_the_waterfall(trace: list[Span]) -> None:
    """Each span has one row, within the width, and rows follow their parents."""
    rows = waterfall(trace)
    assert sorted(row["id"] for row in rows) == sorted(span.span_id for span in trace)
    for row in rows:
        for start, width in (row["bar"], *row.get("path", ())):
            assert 0 <= start <= start + width <= WIDTH + 1
    assert rows[0]["depth"] == 0
    assert all(after["depth"] <= before["depth"] + 1 for before, after in itertools.pairwise(rows))


@given(spans, st.lists(st.integers(-10, 2 * 10**6), min_size=2, max_size=5))
def test_the_scale_keeps_the_order(trace: list[Span], times: list[int]) -> None:
    """A later time is never placed before an earlier one."""
    positions = [time_scale(trace).position(time) for time in sorted(times)]
    assert positions == sorted(positions)


def test_waiting_for_people_is_compressed() -> None:
    """Three days of waiting take 5% of the width; a wait during which other spans run is not compressed."""
    days = 3 * 86_400 * SECOND
    root = span(0, None, 0, 2 * SECOND, "agent")
    trace = [root, span(1, 0, 0, 2 * SECOND), span(2, 0, 2 * SECOND, days, "wait"), span(3, 0, days, days + 2 * SECOND)]
    scale = time_scale(trace)
    assert scale.extent(0, 2 * SECOND)[1] == pytest.approx(WIDTH * 0.475)
    assert scale.extent(2 * SECOND, days)[1] == pytest.approx(WIDTH * 0.05)
    working = [*trace, span(4, 0, 2 * SECOND, days)]
    assert time_scale(working).extent(2 * SECOND, days)[1] > WIDTH * 0.99


@given(st.text())
def test_data_cannot_end_its_script_element(text: str) -> None:
    """Text in a page's data cannot end its script element, and is unchanged when parsed."""
    script = str(json_for_script({"name": text}))
    assert "<" not in script
    assert json.loads(script) == {"name": text}
