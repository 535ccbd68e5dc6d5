"""The number of trials that the gate plans, checked against the decision rule with simulated agents."""

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.evals.gate.decision_rule import MARGIN, interim_stats, plain_rule, sequential_rule
from handrail.evals.gate.trial_plan import MAX_FALSE_BLOCK, cap_looks, choose_looks, choose_plan, shorten_plan, simulate

ROUNDS = 60


def population(cases: int, flip: float, mean: float, seed: int) -> list[float]:
    """Each case's chance to pass, beta-distributed with this mean, so that two trials differ with chance `flip`."""
    draw = random.Random(seed)
    share = flip / 2 / (mean * (1 - mean))
    size = share / (1 - share)
    return [draw.betavariate(mean * size, (1 - mean) * size) for _ in range(cases)]


def blocked(chances: list[float], worse: list[float], trials: int, looks: tuple[int, ...], seed: int) -> bool:
    """Whether the rule blocks a candidate whose cases pass with the chances `worse`."""
    draw = random.Random(seed)
    before, now = (
        {str(n): [Fraction(draw.random() < chance) for _ in range(count)] for n, chance in enumerate(side)}
        for side, count in ((chances, trials), (worse, looks[-1]))
    )
    for look in looks:
        stats = interim_stats(before, {case: values[:look] for case, values in now.items()})
        if verdict := sequential_rule(stats, MARGIN):
            return not verdict.passed
    return not plain_rule(stats, MARGIN).passed


def lowered(chances: list[float], drop: float) -> list[float]:
    """The same chances with the first cases failing, until the mean has dropped by `drop`."""
    remaining, result = drop * len(chances), []
    for chance in chances:
        taken = min(chance, remaining)
        remaining -= taken
        result.append(chance - taken)
    return result


@pytest.mark.parametrize(("cases", "flip"), [(40, 0.1)])
def test_a_plan_predicts_its_error_rates(cases: int, flip: float) -> None:
    """On simulated agents the rule blocks and catches about as often as the plan says."""
    plan = choose_plan(cases, flip)
    assert plan.false_block <= MAX_FALSE_BLOCK
    chances = [population(cases, flip, 0.8, seed) for seed in range(ROUNDS)]
    same = sum(
        blocked(case_chances, case_chances, plan.baseline_trials, plan.looks, n)
        for n, case_chances in enumerate(chances)
    )
    worse = sum(
        blocked(case_chances, lowered(case_chances, 0.05), plan.baseline_trials, plan.looks, n)
        for n, case_chances in enumerate(chances)
    )
    # Four standard errors of a share over ROUNDS.
    assert same / ROUNDS <= plan.false_block + 4 * (plan.false_block / ROUNDS) ** 0.5
    assert worse / ROUNDS >= plan.caught - 4 * ((1 - plan.caught) / ROUNDS) ** 0.5 - 0.01


def test_real_noise_needs_more_trials() -> None:
    """At the flip rate of tau-bench airline, eight trials block an unchanged agent too often; the plan has more."""
    false_block, _ = simulate(50, 0.22, 8, (1, 2, 4, 8), 0)
    assert false_block > 0.1
    plan = choose_plan(50, 0.22)
    assert plan.baseline_trials == 32
    assert plan.false_block <= MAX_FALSE_BLOCK
    assert plan.caught >= 0.85


def test_rare_flips_need_eight_trials() -> None:
    """With 10% flips and 200 cases a baseline of 8 trials is enough; without flips one trial decides."""
    assert choose_plan(200, 0.1).baseline_trials == 8
    still = choose_plan(50, 0)
    assert (still.baseline_trials, still.mean_trials, still.false_block) == (8, 1.0, 0)


def test_an_existing_baseline() -> None:
    """For an existing baseline only the looks are chosen, and the plan states its error rates."""
    plan = choose_looks(50, 0.1, 8)
    assert plan.baseline_trials == 8
    assert str(plan).startswith(
        "Two trials of a case differ 10% of the time: with 8 trials of each case in the baseline (400)"
    )
    assert f"{100 * plan.false_block:.1f}% of the time" in str(plan)


@pytest.mark.parametrize(
    ("looks", "trials", "capped"),
    [
        ((1, 2, 4, 8), None, (1, 2, 4, 8)),
        ((1, 2, 4, 8), 1, (1,)),
        ((2, 4, 8), 1, (1,)),
        ((1, 2, 4, 8), 5, (1, 2, 4, 5)),
        ((1, 2, 4, 8), 8, (1, 2, 4, 8)),
        ((1, 2, 4, 8), 9, (1, 2, 4, 8)),
    ],
)
def test_fewer_trials(looks: tuple[int, ...], trials: int | None, capped: tuple[int, ...]) -> None:
    """The looks below the maximum stay, and the last is at the maximum; a larger maximum changes nothing."""
    assert cap_looks(looks, trials) == capped


def test_a_shortened_plan() -> None:
    """A shortened plan states its own error rates: fewer trials, and more false blocks than before."""
    plan = choose_looks(100, 0.2, 16)
    cut = shorten_plan(plan, 1)
    assert (cut.looks, cut.mean_trials, cut.baseline_trials) == ((1,), 1, 16)
    assert cut.false_block > plan.false_block
    assert "looks after 1, the gate blocks an unchanged agent" in str(cut)
    assert shorten_plan(plan, plan.looks[-1]) == plan
    assert shorten_plan(choose_looks(100, 0, 8), 2).looks == (1, 2)


def test_the_same_numbers_give_the_same_plan() -> None:
    """A plan is deterministic."""
    assert choose_plan(60, 0.15) == choose_plan(60, 0.15)


@settings(max_examples=8)
@given(st.integers(20, 300), st.floats(0.01, 0.4), st.sampled_from([8, 16]))
def test_a_larger_drop_is_blocked_more_often(cases: int, flip: float, trials: int) -> None:
    """With any plan, the chance of a block grows with the drop."""
    chances = [simulate(cases, flip, trials, (2, 4, 8), drop)[0] for drop in (0.0, 0.03, 0.05, 0.1, 0.2)]
    assert all(later >= earlier - 0.01 for earlier, later in itertools.pairwise(chances))
