"""How few traces make most of the cost, and what sets them apart."""

from fractions import Fraction
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import NanoUsd
from handrail.traces.analysis.cost_drivers import Few, dearest, differences
from handrail.traces.model import Span, Usage
from tests.traces.span_builders import made


def trace(cost: int, steps: int = 1, **changed: Any) -> list[Span]:
    """A run of so many searches and a model request of this cost, in nano-dollars; changes are to the request."""
    ask = made("ask", "run", 0, 1, kind="model", name="chat m", cost=NanoUsd(cost), **changed)
    searches = [made(f"s{n}", "run", n + 1, n + 2, kind="tool", name="execute_tool search") for n in range(steps)]
    return [made("run", None, 0, steps + 1, kind="agent", name="invoke_agent a"), ask, *searches]


@given(st.lists(st.integers(0, 10**12).map(NanoUsd), max_size=30))
def test_the_fewest(costs: list[NanoUsd]) -> None:
    """The dearest first, one fewer would not do; all counts are exact."""
    found = dearest(costs)
    sums = [0, *accumulate(sorted(costs, reverse=True))]
    assert (found.of, found.total, found.cost) == (len(costs), sum(costs), sums[found.count])
    assert 5 * found.cost >= 4 * found.total
    assert found.count == 0 or 5 * sums[found.count - 1] < 4 * found.total


def test_the_expensive_five_percent() -> None:
    """One trace of twenty may make four fifths of the cost."""
    found = dearest([NanoUsd(76), *[NanoUsd(1)] * 19])
    assert (found.count, found.share, found.cost_share) == (1, Fraction(1, 20), Fraction(76, 95))
    assert dearest([]) == Few(count=0, of=0, cost=NanoUsd(0), total=NanoUsd(0))


def test_how_often_a_step_runs() -> None:
    """Dear traces that search twelve times where the rest searches twice: said in numbers, first, and all of it."""
    found = differences([trace(1_200, steps=12)] * 3, [trace(200, steps=2)] * 7)[0]
    assert (found.aspect, found.name) == ("steps", "execute_tool search")
    assert found.dear == 12
    assert found.rest == 2
    assert found.times == 6
    assert found.explains == 1
    assert str(found) == (
        "execute_tool search: 12 in each of them, 2.0 in each of the rest (6.0 times as much); "
        "it goes with 100% of the extra cost"
    )


@pytest.mark.parametrize("aspect", ["model", "tenant", "user", "agent", "fingerprint"])
def test_whose_they_are(aspect: str) -> None:
    """A model, a tenant, a user, an agent or a fingerprint that the dear traces share is found."""
    big: dict[str, Any] = {aspect: "big"}
    small: dict[str, Any] = {aspect: "small"}
    found = differences([trace(900, **big)] * 4, [trace(100, **small)] * 4)
    assert [(each.aspect, each.name) for each in found] == [(aspect, "big")]
    assert found[0].times is None
    assert str(found[0]) == (
        f"{aspect} big: 100% of them, 0% of the rest (only there); it goes with 100% of the extra cost"
    )


def test_a_step_that_the_rest_has_not() -> None:
    """A step that only the dear traces have is told once, by the share of traces that have it."""
    extra = made("extra", "run", 2, 3, kind="step", name="rerank")
    [found] = differences([[*trace(900), extra]] * 4, [trace(100)] * 4)
    assert str(found).startswith("rerank ran in 100% of them, in 0% of the rest (only there)")


def test_prompts_retries_errors_and_tokens() -> None:
    """Prompt versions, retries, failed spans, and tokens outside the cache set traces apart, too."""
    dear = trace(
        900,
        attempt=2,
        error_type="malformed",
        usage=Usage(input=5_000, output=50),
        attributes={"gen_ai.prompt.name": "triage", "gen_ai.prompt.version": "7"},
    )
    cheap = trace(100, usage=Usage(input=5_000, cache_read=4_500, output=50))
    found = {(each.aspect, each.name): each for each in differences([dear] * 3, [cheap] * 3)}
    assert set(found) == {
        ("prompt", "triage 7"),
        ("retries", "retries"),
        ("errors", "failed spans"),
        ("tokens", "input tokens not from the cache"),
    }
    assert found["tokens", "input tokens not from the cache"].times == 10


def test_what_goes_with_some_of_it() -> None:
    """A tenant whose traces cost twice as much explains that part of the extra cost, and no more."""
    dear = [trace(400, tenant="big")] * 2 + [trace(300, tenant="small")] * 2
    rest = [trace(200, tenant="big")] * 2 + [trace(100, tenant="small")] * 6
    [found] = differences(dear, rest)
    # Over all, big costs 300 and small 150 on average; the dear ones have a quarter more of it and cost 225 more.
    assert (found.dear, found.rest) == (Fraction(1, 2), Fraction(1, 4))
    assert found.explains == Fraction(150, 4) / 225


def test_support() -> None:
    """What only one of twenty dear traces has is no difference between them and the rest."""
    odd = trace(900, user="odd")
    found = differences([odd, *[trace(900, model="big")] * 19], [trace(100, model="small")] * 20)
    assert [each.name for each in found] == ["big"]


@given(st.lists(st.builds(trace, st.integers(0, 500), steps=st.integers(0, 3)), max_size=12), st.integers(0, 12))
def test_any_split(traces: list[list[Span]], dear: int) -> None:
    """Whatever is compared: the dear ones have more of it, it explains a part, and the largest part comes first."""
    found = differences(traces[:dear], traces[dear:])
    assert all(each.dear > each.rest and 0 < each.explains <= 1 for each in found)
    assert [each.explains for each in found] == sorted((each.explains for each in found), reverse=True)
    assert found == differences(traces[:dear][::-1], traces[dear:][::-1])


def test_nothing_to_compare() -> None:
    """Without traces on both sides, or without an extra cost, nothing is different."""
    assert differences([], [trace(1)]) == differences([trace(1)], []) == []
    assert differences([trace(5, user="a")] * 3, [trace(5, user="b")] * 3) == []
