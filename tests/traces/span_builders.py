"""Builds spans for tests of the analyses."""

from typing import Any

from hypothesis import strategies as st

from handrail.traces.model import Kind, Span

S = 1_000_000_000
"""One second in nanoseconds."""


def make_span(
    span_id: str, parent: str | None, start: float, end: float, *, kind: Kind = "step", name: str = "", **overrides: Any
) -> Span:
    """A span of trace `t` from `start` to `end`, in seconds."""
    fields: dict[str, Any] = {"trace_id": "t", "tenant": "acme", "user": "u-1", "agent": "a", "run_id": "run_1"}
    return Span(
        span_id=span_id,
        parent_id=parent,
        kind=kind,
        name=name or span_id,
        start_ns=round(start * S),
        end_ns=round(end * S),
        **{**fields, **overrides},
    )


def slow_run() -> list[Span]:
    """The run of the slow CRM example: 8.2 s, of which three look-ups in sequence take 5.8 s."""
    return [
        make_span("run", None, 0, 8.2, kind="agent", name="invoke_agent desk"),
        make_span("first", "run", 0, 1.1, kind="model", name="chat m"),
        make_span("tool", "run", 1.1, 6.9, kind="tool", name="execute_tool crm", attributes=READS),
        make_span("orders", "tool", 1.1, 3.2),
        make_span("tickets", "tool", 3.2, 5.1),
        make_span("invoices", "tool", 5.1, 6.9),
        make_span("second", "run", 6.9, 8.2, kind="model", name="chat m"),
    ]


READS = {"handrail.tool.effect": "reads"}


@st.composite
def any_trace(draw: st.DrawFn, max_spans: int = 9) -> list[Span]:
    """Spans with any parents and times (in nanoseconds): missing parents, cycles, and skewed clocks."""
    ids = [f"s{n}" for n in range(draw(st.integers(1, max_spans)))]
    parents = st.none() | st.sampled_from([*ids, "lost"])
    times = st.integers(0, 12)
    return [make_span(span_id, draw(parents), draw(times) / S, draw(times) / S) for span_id in ids]


@st.composite
def nested_trace(draw: st.DrawFn, max_spans: int = 9) -> list[Span]:
    """Spans below one root, each within its parent's time."""
    spans = [make_span("s0", None, 0, draw(st.integers(1, 16)) / S)]
    for number in range(1, draw(st.integers(1, max_spans))):
        parent = draw(st.sampled_from(spans))
        start = draw(st.integers(parent.start_ns, parent.end_ns))
        end = draw(st.integers(start, parent.end_ns))
        spans.append(make_span(f"s{number}", parent.span_id, start / S, end / S))
    return spans
