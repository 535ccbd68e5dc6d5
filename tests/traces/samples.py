"""Spans for tests: one with given fields, and Hypothesis strategies."""

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span, Usage

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
MIDNIGHT = 20_000 * DAY
"""A midnight of UTC, in nanoseconds since 1970."""


def span(span_id: str = "s1", *, trace_id: str = "t1", **overrides: Any) -> Span:
    """A model request of user u-1 of tenant acme."""
    fields: dict[str, Any] = {
        "parent_id": None,
        "kind": "model",
        "name": "chat",
        "start_ns": 100,
        "end_ns": 200,
        "tenant": "acme",
        "user": "u-1",
        "agent": "a",
        "run_id": "run_1",
    }
    return Span(trace_id=trace_id, span_id=span_id, **{**fields, **overrides})


_start_times = st.integers(-30, 30).map(lambda halves: MIDNIGHT + halves * HOUR // 2) | st.integers(
    MIDNIGHT - 2 * DAY, MIDNIGHT + 2 * DAY
)
_durations = st.integers(0, 50) | st.integers(1_000, 10**13)
_tokens = st.integers(0, 1_000)
_money = st.integers(0, 10**12).map(NanoUsd)


@st.composite
def spans(draw: st.DrawFn, tenants: Sequence[str]) -> Span:
    """A span of one of a few traces, so that ids repeat and parents may arrive after their children."""
    start_ns = draw(_start_times)
    kind = draw(st.sampled_from(("agent", "model", "tool", "step", "wait")))
    return span(
        draw(st.sampled_from("abcdefgh")),
        trace_id=draw(st.sampled_from(("t1", "t2", "t3"))),
        parent_id=draw(st.none() | st.sampled_from("abcdefghij")),
        kind=kind,
        name=draw(st.sampled_from(("x", "y", "Z"))),
        start_ns=start_ns,
        end_ns=start_ns + draw(_durations),
        tenant=draw(st.sampled_from(tenants)),
        user=draw(st.sampled_from(("u-1", "u-2", ""))),
        agent=draw(st.sampled_from(("a", "b", ""))),
        error_type=draw(st.none() | st.just("timeout")),
        model=draw(st.none() | st.sampled_from(("small", "large"))),
        usage=draw(st.builds(Usage, input=_tokens, output=_tokens, cache_read=_tokens, cache_write=_tokens)),
        cost=draw(st.just(NanoUsd(0)) | _money),
        reported_cost=draw(st.none() | _money),
        held=draw(st.none() | _money),
        fingerprint=draw(st.none() | st.sampled_from(("f1", "f2"))),
        conversation_id=draw(st.none() | st.just("c1")),
    )


def first_of_each_id(spans_: Iterable[Span]) -> list[Span]:
    """The spans that the store keeps if they arrive in this order: the first with each id."""
    first: dict[tuple[str, str], Span] = {}
    for span_ in spans_:
        first.setdefault((span_.trace_id, span_.span_id), span_)
    return list(first.values())
