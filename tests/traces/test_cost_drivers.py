"""The few traces that make up most of the cost, and how they differ from the rest."""

from fractions import Fraction
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.cost_drivers import CostConcentration, find_cost_drivers, most_expensive
from handrail.traces.model import Span, Usage
from tests.traces.span_builders import make_span


def trace(cost: int, steps: int = 1, **overrides: Any) -> list[Span]:
    """A run with searches and a model request of `cost` nano-dollars; overrides are for the request."""
    request = make_span("ask", "run", 0, 1, kind="model", name="chat m", cost=NanoUsd(cost), **overrides)
    searches = [make_span(f"s{n}", "run", n + 1, n + 2, kind="tool", name="execute_tool search") for n in range(steps)]
    return [make_span("run", None, 0, steps + 1, kind="agent", name="invoke_agent a"), request, *searches]


@given(st.lists(st.integers(0, 10**12).map(NanoUsd), max_size=30))
def test_the_fewest_traces(costs: list[NanoUsd]) -> None:
    """The most expensive traces come first, one fewer would not be enough, and all counts are exact."""
    concentration = most_expensive(costs)
    sums = [0, *accumulate(sorted(costs, reverse=True))]
    assert (concentration.total_traces, concentration.total_cost, concentration.cost) == (
        len(costs),
        sum(costs),
        sums[concentration.traces],
    )
    assert 5 * concentration.cost >= 4 * concentration.total_cost
    assert concentration.traces == 0 or 5 * sums[concentration.traces - 1] < 4 * concentration.total_cost


def test_one_expensive_trace() -> None:
    """One trace of twenty can make up four fifths of the cost."""
    concentration = most_expensive([NanoUsd(76), *[NanoUsd(1)] * 19])
    assert (concentration.traces, concentration.share, concentration.cost_share) == (
        1,
        Fraction(1, 20),
        Fraction(76, 95),
    )
    assert most_expensive([]) == CostConcentration(traces=0, total_traces=0, cost=NanoUsd(0), total_cost=NanoUsd(0))


def test_how_often_a_step_runs() -> None:
    """If expensive traces search twelve times instead of twice, the search is their first cost driver."""
    driver = find_cost_drivers([trace(1_200, steps=12)] * 3, [trace(200, steps=2)] * 7)[0]
    assert (driver.aspect, driver.name) == ("steps", "execute_tool search")
    assert driver.expensive == 12
    assert driver.rest == 2
    assert driver.times == 6
    assert driver.explains == 1
    assert str(driver) == (
        "execute_tool search: 12 per trace, 2.0 in the rest (6.0 times as much); associated with 100% of the extra cost"
    )


@pytest.mark.parametrize("aspect", ["model", "tenant", "user", "agent", "fingerprint"])
def test_shared_attributes(aspect: str) -> None:
    """A model, tenant, user, agent or fingerprint that expensive traces share is a cost driver."""
    big: dict[str, Any] = {aspect: "big"}
    small: dict[str, Any] = {aspect: "small"}
    drivers = find_cost_drivers([trace(900, **big)] * 4, [trace(100, **small)] * 4)
    assert [(driver.aspect, driver.name) for driver in drivers] == [(aspect, "big")]
    assert drivers[0].times is None
    assert str(drivers[0]) == (
        f"{aspect} big: 100% of these, 0% of the rest (only in these); associated with 100% of the extra cost"
    )


def test_a_step_that_the_rest_lacks() -> None:
    """A step that only expensive traces have is listed once, by the share of traces that have it."""
    extra = make_span("extra", "run", 2, 3, kind="step", name="rerank")
    [driver] = find_cost_drivers([[*trace(900), extra]] * 4, [trace(100)] * 4)
    assert str(driver).startswith("rerank ran in 100% of these, in 0% of the rest (only in these)")


def test_prompts_retries_errors_and_tokens() -> None:
    """Prompt versions, retries, failed spans, and tokens not from the cache are cost drivers, too."""
    expensive = trace(
        900,
        attempt=2,
        error_type="malformed",
        usage=Usage(input=5_000, output=50),
        attributes={"gen_ai.prompt.name": "triage", "gen_ai.prompt.version": "7"},
    )
    cheap = trace(100, usage=Usage(input=5_000, cache_read=4_500, output=50))
    drivers = {(driver.aspect, driver.name): driver for driver in find_cost_drivers([expensive] * 3, [cheap] * 3)}
    assert set(drivers) == {
        ("prompt", "triage 7"),
        ("retries", "retries"),
        ("errors", "failed spans"),
        ("tokens", "input tokens not from the cache"),
    }
    assert drivers["tokens", "input tokens not from the cache"].times == 10


def test_partial_explanations() -> None:
    """A tenant whose traces cost twice as much explains that part of the extra cost, and no more."""
    expensive = [trace(400, tenant="big")] * 2 + [trace(300, tenant="small")] * 2
    rest = [trace(200, tenant="big")] * 2 + [trace(100, tenant="small")] * 6
    [driver] = find_cost_drivers(expensive, rest)
    # Over all, big costs 300 and small 150 on average; the expensive ones have a quarter more of it and cost 225 more.
    assert (driver.expensive, driver.rest) == (Fraction(1, 2), Fraction(1, 4))
    assert driver.explains == Fraction(150, 4) / 225


def test_support() -> None:
    """An attribute of only one of twenty expensive traces is not a cost driver."""
    odd = trace(900, user="odd")
    drivers = find_cost_drivers([odd, *[trace(900, model="big")] * 19], [trace(100, model="small")] * 20)
    assert [driver.name for driver in drivers] == ["big"]


@given(st.lists(st.builds(trace, st.integers(0, 500), steps=st.integers(0, 3)), max_size=12), st.integers(0, 12))
def test_any_split(traces: list[list[Span]], expensive: int) -> None:
    """Expensive traces have more of every cost driver, and drivers are ordered by the share that they explain."""
    drivers = find_cost_drivers(traces[:expensive], traces[expensive:])
    assert all(driver.expensive > driver.rest and 0 < driver.explains <= 1 for driver in drivers)
    assert [driver.explains for driver in drivers] == sorted((driver.explains for driver in drivers), reverse=True)
    assert drivers == find_cost_drivers(traces[:expensive][::-1], traces[expensive:][::-1])


def test_nothing_to_compare() -> None:
    """Without traces on both sides, or without an extra cost, there are no cost drivers."""
    assert find_cost_drivers([], [trace(1)]) == find_cost_drivers([trace(1)], []) == []
    assert find_cost_drivers([trace(5, user="a")] * 3, [trace(5, user="b")] * 3) == []
