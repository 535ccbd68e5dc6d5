"""How many trials the gate needs: found by simulating the rule at the flip rate that was measured on the baseline."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from .decision_rule import MARGIN, Z

BASELINE_TRIALS = 8
"""What a baseline begins with, and where it stays while flips are rare."""
DROP = 0.05
"""The true drop that the gate is to catch."""
FALSE_BLOCK = 0.05
"""How often the same agent may be blocked, at most."""
WRONG = 60
"""What a wrong verdict costs, in trials of each case: a plan pays so much for every false block and missed drop."""

FEW_FLIPS = (1, 2, 4, 8)
"""The looks where flips are few, or were not measured."""

_BASELINES = (8, 16, 32)
_LOOKS = (1, 2, 4, 8, 16, 32)
_ROUNDS = 10_000
_SEED = 20_260_101
# The flip rate is itself measured, and few cases flip less evenly than a normal mean does.
_AIM = FALSE_BLOCK - 0.008
_GATES_PER_BASELINE = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Trials of each case: the baseline's, and those after which a candidate is looked at.

    `false_block` and `caught` are the chances that the same agent, and one that is 5 points worse, are blocked;
    `mean_trials` is what the same agent takes on average. `flip` is the rate it is all reckoned from.
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
            f"{100 * self.flip:.0f}% of two trials of a case differ: a baseline of {self.baseline_trials} trials of "
            f"each case ({self.baseline_trials * self.cases:,}) and looks after {after} block the same agent "
            f"{100 * self.false_block:.1f}% of the time and catch {100 * self.caught:.0f}% of 5-point drops; a gate "
            f"takes {self.mean_trials:.1f} trials of each case ({self.mean_trials * self.cases:,.0f}) on average"
        )


def choose(cases: int, flip: float, margin: Fraction = MARGIN) -> Plan:
    """The plan that costs least of those that block the same agent at most 5% of the time; where none does, the one
    that blocks it least.

    The cost is in trials: a gate's, a tenth of the baseline's (ten gates are reckoned for one), and WRONG for a wrong
    verdict. Seeded, so the same numbers give the same plan; takes about a second.
    """
    if not flip:
        return _still(cases, BASELINE_TRIALS)
    return _best([plan for trials in _BASELINES for plan in _plans(cases, flip, trials, margin)])


def choose_looks(cases: int, flip: float, baseline_trials: int, margin: Fraction = MARGIN) -> Plan:
    """The same for a baseline that is there: the looks alone are chosen."""
    if not flip:
        return _still(cases, baseline_trials)
    return _best(list(_plans(cases, flip, baseline_trials, margin)))


def at_most(looks: Sequence[int], trials: int | None) -> tuple[int, ...]:
    """The looks below `trials`, and one at `trials` in place of those above; all of them where it is None."""
    if trials is None or trials >= looks[-1]:
        return tuple(looks)
    return (*(look for look in looks if look < trials), trials)


def shortened(plan: Plan, trials: int | None, margin: Fraction = MARGIN) -> Plan:
    """The plan with at most `trials` of each case, and what it is worth then."""
    looks = at_most(plan.looks, trials)
    if looks == plan.looks or not plan.flip:
        return replace(plan, looks=looks)
    sides = (plan.cases, plan.flip, plan.baseline_trials, looks)
    false_block, mean_trials = simulate(*sides, 0, margin)
    caught, _ = simulate(*sides, DROP, margin)
    return replace(plan, looks=looks, false_block=false_block, mean_trials=mean_trials, caught=caught)


def simulate(
    cases: int, flip: float, baseline_trials: int, looks: Sequence[int], drop: float, margin: Fraction = MARGIN
) -> tuple[float, float]:
    """How often an agent whose score truly drops by `drop` is blocked, and how many trials of each case it takes.

    The mean drop over the cases is simulated as normal, with the variance that `flip` implies within cases. At a first
    look after one trial the rule goes by the population, where a drop that sits in few cases spreads most.
    """
    draw = random.Random(_SEED).gauss  # noqa: S311 - a simulation
    within, allowed = flip / 2, float(margin)
    of_baseline = math.sqrt(within / baseline_trials / cases)
    steps, before = [], 0
    for k in looks:
        of_cases = drop * (1 - drop) if min(k, baseline_trials) == 1 else 0
        variance = (within * (1 / baseline_trials + 1 / k) + of_cases) / cases
        steps.append((k, math.sqrt((k - before) * within / cases), Z * math.sqrt(variance)))
        before = k
    blocked = taken = 0
    for _ in range(_ROUNDS):
        shift, walked = drop + draw(0, of_baseline), 0.0
        for k, step, spread in steps:
            walked += draw(0, step)
            seen = shift - walked / k
            if seen + spread < allowed:
                break
            if seen > allowed and seen > spread:
                blocked += 1
                break
        else:
            blocked += seen > allowed
        taken += k
    return blocked / _ROUNDS, taken / _ROUNDS


def _still(cases: int, baseline_trials: int) -> Plan:
    """Where no two trials of a case differ, the first look shows the truth."""
    return Plan(
        cases=cases,
        flip=0.0,
        baseline_trials=baseline_trials,
        looks=FEW_FLIPS,
        false_block=0.0,
        caught=1.0,
        mean_trials=1.0,
    )


def _plans(cases: int, flip: float, baseline_trials: int, margin: Fraction) -> Iterator[Plan]:
    # Looking longer than the baseline was looked at gains little: its own error stays.
    last = [k for k in _LOOKS if 8 <= k <= max(8, baseline_trials)]
    for first in _LOOKS[:-1]:
        for end in last:
            looks = tuple(k for k in _LOOKS if first <= k <= end)
            if not looks:
                continue
            false_block, mean_trials = simulate(cases, flip, baseline_trials, looks, 0, margin)
            caught, _ = simulate(cases, flip, baseline_trials, looks, DROP, margin)
            yield Plan(
                cases=cases,
                flip=flip,
                baseline_trials=baseline_trials,
                looks=looks,
                false_block=false_block,
                caught=caught,
                mean_trials=mean_trials,
            )


def _best(plans: Sequence[Plan]) -> Plan:
    def cost(plan: Plan) -> float:
        wrong = plan.false_block + 1 - plan.caught
        return plan.mean_trials + plan.baseline_trials / _GATES_PER_BASELINE + WRONG * wrong

    quiet = [plan for plan in plans if plan.false_block <= _AIM]
    return min(quiet, key=cost) if quiet else min(plans, key=lambda plan: (plan.false_block, cost(plan)))
