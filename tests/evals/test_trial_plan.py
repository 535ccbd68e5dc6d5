"""How many trials the gate takes, checked against the rule itself on simulated agents."""

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.evals.gate.decision_rule import MARGIN, compared, plain_rule, sequential_rule
from handrail.evals.gate.trial_plan import FALSE_BLOCK, at_most, choose, choose_looks, shortened, simulate

ROUNDS = 60


def population(cases: int, flip: float, mean: float, seed: int) -> list[float]:
    """Each case's chance to pass: a beta with this mean, in which two trials differ with chance `flip`."""
    draw = random.Random(seed)
    share = flip / 2 / (mean * (1 - mean))
    size = share / (1 - share)
    return [draw.betavariate(mean * size, (1 - mean) * size) for _ in range(cases)]


def blocked(chances: list[float], worse: list[float], trials: int, looks: tuple[int, ...], seed: int) -> bool:
    """What the rule says of a candidate with the chances `worse`."""
    draw = random.Random(seed)
    before, now = (
        {str(n): [Fraction(draw.random() < chance) for _ in range(count)] for n, chance in enumerate(side)}
        for side, count in ((chances, trials), (worse, looks[-1]))
    )
    for look in looks:
        found = compared(before, {case: values[:look] for case, values in now.items()})
        if verdict := sequential_rule(found, MARGIN):
            return not verdict.passed
    return not plain_rule(found, MARGIN).passed


def fallen(chances: list[float], drop: float) -> list[float]:
    """The same chances with the first cases broken, until the mean has dropped so far."""
    left, found = drop * len(chances), []
    for chance in chances:
        taken = min(chance, left)
        left -= taken
        found.append(chance - taken)
    return found


@pytest.mark.parametrize(("cases", "flip"), [(40, 0.1)])
def test_a_plan_keeps_its_word(cases: int, flip: float) -> None:
    """On simulated agents the rule itself blocks and catches about as often as the plan says."""
    plan = choose(cases, flip)
    assert plan.false_block <= FALSE_BLOCK
    chances = [population(cases, flip, 0.8, seed) for seed in range(ROUNDS)]
    same = sum(blocked(each, each, plan.baseline_trials, plan.looks, n) for n, each in enumerate(chances))
    worse = sum(
        blocked(each, fallen(each, 0.05), plan.baseline_trials, plan.looks, n) for n, each in enumerate(chances)
    )
    # Four standard errors of a share of so many rounds.
    assert same / ROUNDS <= plan.false_block + 4 * (plan.false_block / ROUNDS) ** 0.5
    assert worse / ROUNDS >= plan.caught - 4 * ((1 - plan.caught) / ROUNDS) ** 0.5 - 0.01


def test_real_noise_needs_more_trials() -> None:
    """At the flips of tau-bench airline, eight trials block the same agent too often, and the plan asks for more."""
    false_block, _ = simulate(50, 0.22, 8, (1, 2, 4, 8), 0)
    assert false_block > 0.1
    plan = choose(50, 0.22)
    assert plan.baseline_trials == 32
    assert plan.false_block <= FALSE_BLOCK
    assert plan.caught >= 0.85


def test_rare_flips_stay_at_eight() -> None:
    """With 10% flips and 200 cases a baseline of 8 trials is enough, and without flips one look is."""
    assert choose(200, 0.1).baseline_trials == 8
    still = choose(50, 0)
    assert (still.baseline_trials, still.mean_trials, still.false_block) == (8, 1.0, 0)


def test_a_baseline_that_is_there() -> None:
    """For given baseline trials the looks alone are chosen, and what they cost is said."""
    plan = choose_looks(50, 0.1, 8)
    assert plan.baseline_trials == 8
    assert str(plan).startswith("10% of two trials of a case differ: a baseline of 8 trials of each case (400)")
    assert f"{100 * plan.false_block:.1f}% of the time" in str(plan)


@pytest.mark.parametrize(
    ("looks", "trials", "left"),
    [
        ((1, 2, 4, 8), None, (1, 2, 4, 8)),
        ((1, 2, 4, 8), 1, (1,)),
        ((2, 4, 8), 1, (1,)),
        ((1, 2, 4, 8), 5, (1, 2, 4, 5)),
        ((1, 2, 4, 8), 8, (1, 2, 4, 8)),
        ((1, 2, 4, 8), 9, (1, 2, 4, 8)),
    ],
)
def test_fewer_trials(looks: tuple[int, ...], trials: int | None, left: tuple[int, ...]) -> None:
    """The looks below the most trials stay, and the last is at them; more than there were are no more looks."""
    assert at_most(looks, trials) == left


def test_what_fewer_trials_cost() -> None:
    """A plan cut short says what it is worth then: as many trials as are left, and more false blocks than before."""
    plan = choose_looks(100, 0.2, 16)
    cut = shortened(plan, 1)
    assert (cut.looks, cut.mean_trials, cut.baseline_trials) == ((1,), 1, 16)
    assert cut.false_block > plan.false_block
    assert "looks after 1 block the same agent" in str(cut)
    assert shortened(plan, plan.looks[-1]) == plan
    assert shortened(choose_looks(100, 0, 8), 2).looks == (1, 2)


def test_the_same_numbers_give_the_same_plan() -> None:
    """The choice is seeded."""
    assert choose(60, 0.15) == choose(60, 0.15)


@settings(max_examples=8)
@given(st.integers(20, 300), st.floats(0.01, 0.4), st.sampled_from([8, 16]))
def test_a_larger_drop_is_blocked_more_often(cases: int, flip: float, trials: int) -> None:
    """Whatever the plan, the chance of a block grows with the drop."""
    chances = [simulate(cases, flip, trials, (2, 4, 8), drop)[0] for drop in (0.0, 0.03, 0.05, 0.1, 0.2)]
    assert all(later >= sooner - 0.01 for sooner, later in itertools.pairwise(chances))
