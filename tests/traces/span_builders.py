"""Spans made up for tests of what is read from them."""

from typing import Any

from hypothesis import strategies as st

from handrail.traces.model import Kind, Span

S = 1_000_000_000
"""Nanoseconds of a second."""


def made(
    span_id: str, parent: str | None, start: float, end: float, *, kind: Kind = "step", name: str = "", **changed: Any
) -> Span:
    """A span of trace `t` from `start` to `end`, seconds."""
    fields: dict[str, Any] = {"trace_id": "t", "tenant": "acme", "user": "u-1", "agent": "a", "run_id": "run_1"}
    return Span(
        span_id=span_id,
        parent_id=parent,
        kind=kind,
        name=name or span_id,
        start_ns=round(start * S),
        end_ns=round(end * S),
        **{**fields, **changed},
    )


def slow_run() -> list[Span]:
    """The case of the slow CRM: 8.2 s, of which three look-ups in a row take 5.8."""
    return [
        made("run", None, 0, 8.2, kind="agent", name="invoke_agent desk"),
        made("first", "run", 0, 1.1, kind="model", name="chat m"),
        made("tool", "run", 1.1, 6.9, kind="tool", name="execute_tool crm", attributes=READS),
        made("orders", "tool", 1.1, 3.2),
        made("tickets", "tool", 3.2, 5.1),
        made("invoices", "tool", 5.1, 6.9),
        made("second", "run", 6.9, 8.2, kind="model", name="chat m"),
    ]


READS = {"handrail.tool.effect": "reads"}


@st.composite
def any_trace(draw: st.DrawFn, most: int = 9) -> list[Span]:
    """Spans with any parents and times, seconds being nanoseconds here: lost parents, circles, clocks that are off."""
    ids = [f"s{n}" for n in range(draw(st.integers(1, most)))]
    parents = st.none() | st.sampled_from([*ids, "lost"])
    times = st.integers(0, 12)
    return [made(each, draw(parents), draw(times) / S, draw(times) / S) for each in ids]


@st.composite
def nested_trace(draw: st.DrawFn, most: int = 9) -> list[Span]:
    """Spans below one root, each within its parent's time."""
    found = [made("s0", None, 0, draw(st.integers(1, 16)) / S)]
    for number in range(1, draw(st.integers(1, most))):
        parent = draw(st.sampled_from(found))
        start = draw(st.integers(parent.start_ns, parent.end_ns))
        end = draw(st.integers(start, parent.end_ns))
        found.append(made(f"s{number}", parent.span_id, start / S, end / S))
    return found
