"""Waste in money and time, and ungoverned spend."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.waste import UngovernedRequests, WasteItem, find_waste
from handrail.traces.model import Span
from tests.traces.span_builders import S, make_span


def run(*children: Span, run_id: str = "run_1", error: str | None = None) -> list[Span]:
    return [
        make_span("run", None, 0, 10, kind="agent", name="invoke_agent a", run_id=run_id, error_type=error),
        *children,
    ]


def ask(span_id: str, start: float, end: float, cost: int, **overrides: Any) -> Span:
    return make_span(
        span_id,
        "run",
        start,
        end,
        kind="model",
        name="chat m",
        cost=NanoUsd(cost),
        **{"held": NanoUsd(99), **overrides},
    )


def reasons(*traces: list[Span]) -> list[tuple[str, str, int, int, int]]:
    return [(item.reason, item.step, item.count, item.cost, item.time_ns // S) for item in find_waste(traces).items]


def test_an_answer_wastes_nothing() -> None:
    """A run that was answered at the first attempt has no waste."""
    report = find_waste([run(ask("one", 0, 4, 7))])
    assert (report.items, report.cost, report.time_ns, report.total_cost, report.total_ns) == ((), 0, 0, 7, 10 * S)


def test_retries() -> None:
    """The first attempt is waste, the second is not."""
    assert reasons(run(ask("one", 0, 2, 5), ask("two", 2, 5, 6, attempt=2, retry_of="one"))) == [
        ("retried", "chat m", 1, 5, 2)
    ]


def test_failures() -> None:
    """A request that failed still cost money, and a tool that failed took its time."""
    failed_tool = make_span("tool", "run", 4, 5, kind="tool", name="execute_tool find", error_type="ToolFault")
    assert reasons(run(ask("one", 0, 3, 5, error_type="ModelTimeoutError"), failed_tool)) == [
        ("failed", "chat m", 1, 5, 3),
        ("failed", "execute_tool find", 1, 0, 1),
    ]


def test_abandoned_spans() -> None:
    """An abandoned stream and a cancelled request count as abandoned even in a failed run."""
    abandoned = run(ask("one", 0, 3, 5, error_type="GeneratorExit"), ask("two", 3, 5, 1, error_type="CancelledError"))
    assert reasons(abandoned) == [("abandoned", "chat m", 2, 6, 5)]


def test_runs_without_an_answer() -> None:
    """Everything in a failed or refused run is waste, including its own time; each span counts once."""
    refuse = make_span("refuse", "run", 9, 9.5, name="refuse", error_type="ceiling_user")
    refused = run(ask("one", 0, 9, 5), refuse)
    assert reasons(refused)[0] == ("run refused", "chat m", 1, 5, 9)
    failed = run(ask("one", 0, 4, 5, error_type="ModelAPIError"), ask("two", 4, 8, 6), error="model_unavailable")
    assert reasons(failed) == [
        ("run failed", "chat m", 1, 6, 4),
        ("failed", "chat m", 1, 5, 4),
        ("run failed", "invoke_agent a", 1, 0, 2),
    ]


def test_a_run_that_fell_back() -> None:
    """A run whose fallback answered is not waste, except for its failed spans."""
    fell_back = make_span("fallback", "run", 8, 9, name="fallback")
    rows = reasons(run(ask("one", 0, 4, 5, error_type="ModelAPIError"), fell_back, error="model_unavailable"))
    assert rows == [("failed", "chat m", 1, 5, 4)]


def test_a_resumed_run() -> None:
    """The last part of a run decides whether it is waste, and waiting for people is not waste."""
    resumed = make_span("again", "run", 100, 103, kind="agent", name="invoke_agent a", error_type="tool_failed")
    people = make_span("people", "again", 10, 99, kind="wait")
    report = find_waste([run(ask("one", 0, 4, 5), resumed, people)])
    assert [(item.reason, item.step) for item in report.items] == [
        ("run failed", "chat m"),
        ("run failed", "invoke_agent a"),
    ]
    assert report.total_ns == report.time_ns == 13 * S


def test_ungoverned_spend() -> None:
    """Spend without a hold is listed by agent and model; free or held requests are not."""
    ungoverned = [ask(f"s{n}", n, n + 1, 5, held=None, model="big") for n in range(2)]
    free = ask("free", 3, 4, 0, held=None, model="local")
    report = find_waste([run(*ungoverned, free, ask("held", 4, 5, 50))])
    assert report.ungoverned == (UngovernedRequests(agent="a", model="big", count=2, cost=NanoUsd(10)),)


_errors = st.sampled_from([None, "GeneratorExit", "ModelAPIError", "ceiling_user"])
_spans = st.builds(
    lambda number, parent, name, error, cost, retry_of: make_span(
        f"s{number}",
        parent,
        number,
        number + 2,
        kind="model" if name == "chat" else "step",
        name=name,
        error_type=error,
        cost=NanoUsd(cost),
        retry_of=retry_of,
    ),
    st.integers(0, 8),
    st.sampled_from([None, "s0", "s1", "run"]),
    st.sampled_from(["chat", "refuse", "fallback"]),
    _errors,
    st.integers(0, 9),
    st.sampled_from([None, "s0", "s3"]),
)


@given(st.lists(_spans, max_size=8, unique_by=lambda span: span.span_id), _errors)
def test_nothing_counts_twice(children: list[Span], error: str | None) -> None:
    """Waste is never more than the total, and its items add up to it."""
    report = find_waste([run(*children, error=error)])
    assert report.cost == sum(item.cost for item in report.items) <= report.total_cost == sum(s.cost for s in children)
    assert report.time_ns == sum(item.time_ns for item in report.items) <= report.total_ns
    assert all(isinstance(item, WasteItem) and item.count for item in report.items)


def test_no_traces() -> None:
    """Without traces there is no waste."""
    report = find_waste([])
    assert (report.items, report.ungoverned, report.total_cost) == ((), (), 0)
