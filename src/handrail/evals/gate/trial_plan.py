"""How many trials the gate needs, found by simulating the decision rule at the flip rate of the baseline.

An agent that gives the same answer every time needs one trial of each case. The more its answers vary, the more trials
it takes to tell a worse agent from an unlucky one, and the right number depends on the size of the set too. There is no
closed formula for a rule with several looks, a fixed margin and a fallback at the last look, so each candidate plan (a
size of the baseline, a first and a last look) is simulated: how often it blocks an unchanged agent, how often it
catches a drop of 5 points, and how many trials it takes on average. `choose_plan` takes the cheapest plan of those with
at most 5% false blocks.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from .decision_rule import MARGIN, Z

BASELINE_TRIALS = 8
"""Trials of each case in a new baseline, before the flip rate is known."""
DROP = 0.05
"""The true drop that the gate should catch."""
MAX_FALSE_BLOCK = 0.05
"""How often an unchanged agent may be blocked, at most."""
WRONG_VERDICT_COST = 60
"""The cost of a false block or a missed drop, in trials of each case, when plans are compared."""

DEFAULT_LOOKS = (1, 2, 4, 8)
"""The looks where the flip rate is zero or unknown."""

_BASELINE_SIZES = (8, 16, 32)
_LOOKS = (1, 2, 4, 8, 16, 32)
_ROUNDS = 10_000
_SEED = 20_260_101
# Stricter than promised: the flip rate is an estimate, and the mean over few cases is not quite normal.
_TARGET_FALSE_BLOCK = MAX_FALSE_BLOCK - 0.008
# A baseline's trials are paid for once and serve about this many gates.
_GATES_PER_BASELINE = 10


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """How many trials of each case the baseline has, and after how many a candidate is looked at.

    `false_block` is the chance that an unchanged agent is blocked, `caught` the chance that one which is 5 points worse
    is; `mean_trials` is the average number of trials of each case for an unchanged agent. All follow from `flip`, the
    chance that two trials of a case differ.
    """

    cases: int
    flip: float
    baseline_trials: int
    looks: tuple[int, ...]
    false_block: float
    caught: float
    mean_trials: float

    def __str__(self) -> str:
        looks = ", ".join(map(str, self.looks[:-1]))
        after = f"{looks} and {self.looks[-1]}" if looks else str(self.looks[-1])
        return (
            f"Two trials of a case differ {100 * self.flip:.0f}% of the time: with {self.baseline_trials} trials of "
            f"each case in the baseline ({self.baseline_trials * self.cases:,}) and looks after {after}, the gate "
            f"blocks an unchanged agent {100 * self.false_block:.1f}% of the time, catches {100 * self.caught:.0f}% of "
            f"5-point drops and takes {self.mean_trials:.1f} trials of each case "
            f"({self.mean_trials * self.cases:,.0f}) on average"
        )


def choose_plan(cases: int, flip: float, margin: Fraction = MARGIN) -> TrialPlan:
    """The cheapest plan that blocks an unchanged agent at most 5% of the time; else the one that blocks it least.

    The cost of a plan is in trials of each case: the average of a gate, a tenth of the baseline (which serves about ten
    gates), and WRONG_VERDICT_COST for each false block and missed drop. The simulation is seeded, so that the same
    numbers give the same plan. Takes about a second.

    Args:
        cases: How many cases the set has.
        flip: The chance that two trials of a case differ, from 0 to 1.
        margin: How far the score may drop, as an absolute share.
    """
    if not flip:
        return _plan_without_flips(cases, BASELINE_TRIALS)
    return _cheapest([plan for trials in _BASELINE_SIZES for plan in _plans(cases, flip, trials, margin)])


def choose_looks(cases: int, flip: float, baseline_trials: int, margin: Fraction = MARGIN) -> TrialPlan:
    """Like `choose_plan`, for an existing baseline with `baseline_trials` of each case: only the looks are chosen.

    Args:
        cases: How many cases the set has.
        flip: The chance that two trials of a case differ, from 0 to 1.
        baseline_trials: Trials of each case in the baseline.
        margin: How far the score may drop, as an absolute share.
    """
    if not flip:
        return _plan_without_flips(cases, baseline_trials)
    return _cheapest(list(_plans(cases, flip, baseline_trials, margin)))


def cap_looks(looks: Sequence[int], trials: int | None) -> tuple[int, ...]:
    """The looks before `trials`, and one at `trials` in place of those after it; all of them where it is None."""
    if trials is None or trials >= looks[-1]:
        return tuple(looks)
    return (*(look for look in looks if look < trials), trials)


def shorten_plan(plan: TrialPlan, trials: int | None, margin: Fraction = MARGIN) -> TrialPlan:
    """The plan with at most `trials` of each case, its rates simulated again."""
    looks = cap_looks(plan.looks, trials)
    if looks == plan.looks or not plan.flip:
        return replace(plan, looks=looks)
    setup = (plan.cases, plan.flip, plan.baseline_trials, looks)
    false_block, mean_trials = simulate(*setup, 0, margin)
    caught, _ = simulate(*setup, DROP, margin)
    return replace(plan, looks=looks, false_block=false_block, mean_trials=mean_trials, caught=caught)


def simulate(
    cases: int, flip: float, baseline_trials: int, looks: Sequence[int], drop: float, margin: Fraction = MARGIN
) -> tuple[float, float]:
    """Simulates the gate on an agent whose score truly drops by `drop`.

    By the central limit theorem the mean drop over the cases is close to normal, so no single trials are drawn: each
    round draws the baseline's error once, then walks the candidate's mean from look to look, since a later look
    contains the trials of those before it. The variance of a trial within its case is half the flip rate.

    At a first look after one trial the rule uses the error over the population of cases. That is largest where the drop
    sits in few cases which fail every time, so this worst case is added.

    Args:
        cases: How many cases the set has.
        flip: The chance that two trials of a case differ, from 0 to 1.
        baseline_trials: Trials of each case in the baseline.
        looks: After how many trials of each case the candidate is looked at.
        drop: How much worse the agent truly is, as a share.
        margin: How far the score may drop, as an absolute share.

    Returns:
        How often the agent is blocked, as a share, and how many trials of each case that takes on average.
    """
    draw = random.Random(_SEED).gauss  # noqa: S311 - a simulation
    within, allowed = flip / 2, float(margin)
    baseline_error = math.sqrt(within / baseline_trials / cases)
    # For each look: its trials, the standard deviation of the sum of the trials since the previous look, and Z errors.
    steps, previous = [], 0
    for look in looks:
        between = drop * (1 - drop) if min(look, baseline_trials) == 1 else 0
        variance = (within * (1 / baseline_trials + 1 / look) + between) / cases
        steps.append((look, math.sqrt((look - previous) * within / cases), Z * math.sqrt(variance)))
        previous = look
    blocked = trials = 0
    for _ in range(_ROUNDS):
        # The candidate's sum is an error that grows with its trials; divided by their number it shrinks.
        shift, total = drop + draw(0, baseline_error), 0.0
        for look, deviation, spread in steps:
            total += draw(0, deviation)
            measured = shift - total / look
            if measured + spread < allowed:
                break
            if measured > allowed and measured > spread:
                blocked += 1
                break
        else:
            blocked += measured > allowed
        trials += look
    return blocked / _ROUNDS, trials / _ROUNDS


def _plan_without_flips(cases: int, baseline_trials: int) -> TrialPlan:
    """The plan where no two trials of a case differ: the first look is exact."""
    return TrialPlan(
        cases=cases,
        flip=0.0,
        baseline_trials=baseline_trials,
        looks=DEFAULT_LOOKS,
        false_block=0.0,
        caught=1.0,
        mean_trials=1.0,
    )


def _plans(cases: int, flip: float, baseline_trials: int, margin: Fraction) -> Iterator[TrialPlan]:
    # More trials than the baseline has gain little, since the baseline's own error stays.
    last_looks = [k for k in _LOOKS if 8 <= k <= max(8, baseline_trials)]
    for first in _LOOKS[:-1]:
        for last in last_looks:
            looks = tuple(k for k in _LOOKS if first <= k <= last)
            if not looks:
                continue
            false_block, mean_trials = simulate(cases, flip, baseline_trials, looks, 0, margin)
            caught, _ = simulate(cases, flip, baseline_trials, looks, DROP, margin)
            yield TrialPlan(
                cases=cases,
                flip=flip,
                baseline_trials=baseline_trials,
                looks=looks,
                false_block=false_block,
                caught=caught,
                mean_trials=mean_trials,
            )


def _cheapest(plans: Sequence[TrialPlan]) -> TrialPlan:
    def cost(plan: TrialPlan) -> float:
        wrong_verdicts = plan.false_block + 1 - plan.caught
        return plan.mean_trials + plan.baseline_trials / _GATES_PER_BASELINE + WRONG_VERDICT_COST * wrong_verdicts

    acceptable = [plan for plan in plans if plan.false_block <= _TARGET_FALSE_BLOCK]
    return min(acceptable, key=cost) if acceptable else min(plans, key=lambda plan: (plan.false_block, cost(plan)))
