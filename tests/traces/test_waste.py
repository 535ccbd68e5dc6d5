"""What led nowhere, and what was spent around every ceiling."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.waste import Around, Wasted, waste_of
from handrail.traces.model import Span
from tests.traces.span_builders import S, made


def run(*inside: Span, run_id: str = "run_1", error: str | None = None) -> list[Span]:
    return [made("run", None, 0, 10, kind="agent", name="invoke_agent a", run_id=run_id, error_type=error), *inside]


def ask(span_id: str, start: float, end: float, cost: int, **changed: Any) -> Span:
    return made(
        span_id, "run", start, end, kind="model", name="chat m", cost=NanoUsd(cost), **{"held": NanoUsd(99), **changed}
    )


def reasons(*traces: list[Span]) -> list[tuple[str, str, int, int, int]]:
    return [(each.reason, each.step, each.count, each.cost, each.time_ns // S) for each in waste_of(traces).items]


def test_an_answer_wastes_nothing() -> None:
    """A run that was answered at once has no waste."""
    found = waste_of([run(ask("one", 0, 4, 7))])
    assert (found.items, found.cost, found.time_ns, found.total_cost, found.total_ns) == ((), 0, 0, 7, 10 * S)


def test_what_was_tried_again() -> None:
    """The first attempt led nowhere, the second did not."""
    assert reasons(run(ask("one", 0, 2, 5), ask("two", 2, 5, 6, attempt=2, retry_of="one"))) == [
        ("retried", "chat m", 1, 5, 2)
    ]


def test_what_failed() -> None:
    """A request that failed was paid for all the same; a tool that failed took its time."""
    failed_tool = made("tool", "run", 4, 5, kind="tool", name="execute_tool find", error_type="ToolFault")
    assert reasons(run(ask("one", 0, 3, 5, error_type="ModelTimeoutError"), failed_tool)) == [
        ("failed", "chat m", 1, 5, 3),
        ("failed", "execute_tool find", 1, 0, 1),
    ]


def test_what_was_abandoned() -> None:
    """A stream that its reader left, and a request that was cancelled, count as abandoned even in a failed run."""
    left = run(ask("one", 0, 3, 5, error_type="GeneratorExit"), ask("two", 3, 5, 1, error_type="CancelledError"))
    assert reasons(left) == [("abandoned", "chat m", 2, 6, 5)]


def test_runs_without_an_answer() -> None:
    """All that a failed or refused run did led nowhere, its own time included; each span counts once."""
    refuse = made("refuse", "run", 9, 9.5, name="refuse", error_type="ceiling_user")
    refused = run(ask("one", 0, 9, 5), refuse)
    assert reasons(refused)[0] == ("run refused", "chat m", 1, 5, 9)
    failed = run(ask("one", 0, 4, 5, error_type="ModelAPIError"), ask("two", 4, 8, 6), error="model_unavailable")
    assert reasons(failed) == [
        ("run failed", "chat m", 1, 6, 4),
        ("failed", "chat m", 1, 5, 4),
        ("run failed", "invoke_agent a", 1, 0, 2),
    ]


def test_a_run_that_fell_back() -> None:
    """A run whose fallback answered was not for nothing; only what failed in it was."""
    fell_back = made("fallback", "run", 8, 9, name="fallback")
    found = reasons(run(ask("one", 0, 4, 5, error_type="ModelAPIError"), fell_back, error="model_unavailable"))
    assert found == [("failed", "chat m", 1, 5, 4)]


def test_a_run_that_was_carried_on() -> None:
    """A run is judged by its last part; people's time is nobody's waste."""
    later = made("again", "run", 100, 103, kind="agent", name="invoke_agent a", error_type="tool_failed")
    people = made("people", "again", 10, 99, kind="wait")
    found = waste_of([run(ask("one", 0, 4, 5), later, people)])
    assert [(each.reason, each.step) for each in found.items] == [
        ("run failed", "chat m"),
        ("run failed", "invoke_agent a"),
    ]
    assert found.total_ns == found.time_ns == 13 * S


def test_spend_around_the_ceilings() -> None:
    """What cost money and was not held beforehand is named by agent and model; what was free or held is not."""
    around = [ask(f"s{n}", n, n + 1, 5, held=None, model="big") for n in range(2)]
    free = ask("free", 3, 4, 0, held=None, model="local")
    found = waste_of([run(*around, free, ask("held", 4, 5, 50))])
    assert found.ungoverned == (Around(agent="a", model="big", count=2, cost=NanoUsd(10)),)


_errors = st.sampled_from([None, "GeneratorExit", "ModelAPIError", "ceiling_user"])
_spans = st.builds(
    lambda number, parent, name, error, cost, again: made(
        f"s{number}",
        parent,
        number,
        number + 2,
        kind="model" if name == "chat" else "step",
        name=name,
        error_type=error,
        cost=NanoUsd(cost),
        retry_of=again,
    ),
    st.integers(0, 8),
    st.sampled_from([None, "s0", "s1", "run"]),
    st.sampled_from(["chat", "refuse", "fallback"]),
    _errors,
    st.integers(0, 9),
    st.sampled_from([None, "s0", "s3"]),
)


@given(st.lists(_spans, max_size=8, unique_by=lambda span: span.span_id), _errors)
def test_nothing_counts_twice(inside: list[Span], error: str | None) -> None:
    """Waste is never more than all there was, and its parts add up to it."""
    found = waste_of([run(*inside, error=error)])
    assert found.cost == sum(each.cost for each in found.items) <= found.total_cost == sum(s.cost for s in inside)
    assert found.time_ns == sum(each.time_ns for each in found.items) <= found.total_ns
    assert all(isinstance(each, Wasted) and each.count for each in found.items)


def test_nothing() -> None:
    """No traces waste nothing."""
    found = waste_of([])
    assert (found.items, found.ungoverned, found.total_cost) == ((), (), 0)
