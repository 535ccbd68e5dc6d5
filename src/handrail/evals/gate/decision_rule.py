"""The gate's decision rule: whether a candidate passes, given its trials and the baseline's on the same cases.

The rule is a group-sequential test. A candidate is looked at after some trials of every case (an interim look):
`interim_stats` estimates the drop of the score and its standard error, and `sequential_rule` decides where the estimate
is clear. Otherwise more trials follow. At the last look `plain_rule` decides by the estimate alone, so that a measured
drop above the margin never passes.

Both sides have the same cases, so the drop is estimated from the differences within cases (a paired comparison), which
takes the spread between easy and hard cases out of its error (Miller, "Adding Error Bars to Evals", 2024). Looking
several times raises the chance of a wrong verdict above that of a single test at the same Z. No boundary corrects for
that here: `trial_plan` simulates the rule with its looks and chooses those that keep the false blocks below 5%.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

from handrail.kernel.errors import BadInput

MARGIN = Fraction(3, 100)
"""The default margin, as an absolute share: the score may drop by 3 points."""
Z = 2
"""Standard errors to either side of a drop, which is about 95% confidence."""

_SMALL_SET = 100
# A drop of this many standard errors above the margin is blocked four times in five (a power of 80%).
_POWER_Z = NormalDist().inv_cdf(0.8)
_DENOMINATOR_LIMIT = 1_000_000

CaseValues: TypeAlias = Mapping[str, Sequence[Fraction]]
"""The values of a case's trials, each from 0 to 1, by the case's id."""
Margin: TypeAlias = Callable[[Fraction], Fraction]
"""How far a score may drop, as an absolute share, given the baseline's score."""


@dataclass(frozen=True, kw_only=True)
class InterimStats:
    """What the trials so far show. Shares are exact, from 0 to 1; `drop` is negative where the score rose.

    There are two standard errors of the drop. `error` is the one that the rule uses. With two or more trials of every
    case on both sides, it is the error within the cases: how much the drop would vary if the same cases were run again.
    With a single trial of some case, that cannot be estimated, and it is `population_error`: how much the drop would
    vary with other cases drawn from the same population. Both are None for a single case.

    `flip` is the chance that two trials of a case by the same agent differ, estimated on both sides; None where no case
    has two trials on one side. `trials` and `baseline_trials` are the trials of one case, the most that there are.

    `newly_failing` and `newly_passing` are the ids, sorted, of the cases whose value fell from above a half to below
    it, and the other way round.
    """

    baseline: Fraction
    candidate: Fraction
    drop: Fraction
    variance: Fraction | None
    population_variance: Fraction | None
    flip: Fraction | None
    cases: int
    trials: int
    baseline_trials: int
    newly_failing: tuple[str, ...] = ()
    newly_passing: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """The standard error of the drop that the rule uses."""
        return None if self.variance is None else math.sqrt(self.variance)

    @property
    def population_error(self) -> float | None:
        """The standard error of the drop over the population of cases."""
        return None if self.population_variance is None else math.sqrt(self.population_variance)

    def detectable_drop(self, margin: Fraction) -> float | None:
        """The smallest true drop that is blocked four times in five after these trials; None without a flip rate."""
        if self.flip is None:
            return None
        within = float(self.flip) / 2 * (1 / self.trials + 1 / self.baseline_trials) / self.cases
        return float(margin) + _POWER_Z * math.sqrt(within)


@dataclass(frozen=True, kw_only=True)
class GateVerdict(InterimStats):
    """Whether a change passes, and why; `measure` names what was compared where that is not the whole score."""

    passed: bool
    margin: Fraction
    decided_by: Literal["sequential rule", "plain rule"]
    measure: str = ""

    def __str__(self) -> str:
        estimate = ", ".join(part for part in (self._movement(), self._certainty()) if part)
        text = f"{estimate}; {'passed' if self.passed else 'blocked'}"
        if self.decided_by == "plain rule":
            text += (
                f", decided by the plain rule ({'up to' if self.passed else 'more than'} {_plain(self.margin)} points)"
            )
        return text + self._warning()

    def _movement(self) -> str:
        before, after = (f"{100 * float(share):.1f}%" for share in (self.baseline, self.candidate))
        name = f"{self.measure} " if self.measure else ""
        if self.drop == 0:
            return f"{name}stayed at {before}"
        verb = "dropped" if self.drop > 0 else "rose"
        return f"{name}{verb} {_points(abs(self.drop), self.margin)} points, from {before} to {after}"

    def _certainty(self) -> str:
        if self.error is None:
            return ""
        low, high = (100 * (float(self.drop) + sign * Z * self.error) for sign in (-1, 1))
        if self.decided_by == "plain rule":
            return f"95% sure it is between {low:.1f} and {high:.1f}"
        if self.error == 0:
            return "the same in every trial"
        if self.passed:
            return f"95% sure {'it' if self.drop > 0 else 'any drop'} is less than {_below(high, self.margin):.1f}"
        return f"95% sure it is more than {low:.1f}"

    def _warning(self) -> str:
        if self.cases >= _SMALL_SET:
            return ""
        smallest = self.detectable_drop(self.margin)
        if smallest is None:
            points = f"{100 / self.cases:.1f} points"
            return f"; a set of {self.cases} cases cannot detect small drops, since one case is {points}"
        return f"; a set of {self.cases} cases detects drops of {100 * smallest:.1f} points four times in five"


def absolute_margin(share: Fraction) -> Margin:
    """A margin in points, the same for every baseline."""
    return lambda _baseline: share


def relative_margin(share: Fraction) -> Margin:
    """A margin as a share of the baseline's score."""
    return lambda baseline: share * baseline


def values_by_case(trials: Iterable[tuple[str, float]]) -> dict[str, list[Fraction]]:
    """The values of each case's trials, from the (case id, value) of every trial; exact to six digits."""
    values: defaultdict[str, list[Fraction]] = defaultdict(list)
    for case_id, value in trials:
        values[case_id].append(Fraction(value).limit_denominator(_DENOMINATOR_LIMIT))
    return dict(values)


def interim_stats(baseline: CaseValues, candidate: CaseValues) -> InterimStats:
    """Compares the trials of both sides. Raises BadInput if they do not have the same cases, or have none."""
    if baseline.keys() != candidate.keys():
        unshared = ", ".join(sorted(baseline.keys() ^ candidate.keys())[:5])
        raise BadInput(
            f"gate: baseline and candidate do not have the same cases ({unshared}); create a baseline on this set"
        )
    if not baseline:
        raise BadInput("gate: there are no cases to compare; add some to the set")
    old, new = ({case: _mean(values) for case, values in side.items()} for side in (baseline, candidate))
    drops = [old[case] - new[case] for case in old]
    population = None if len(drops) < 2 else _variance(drops) / len(drops)
    within = _variance_within(baseline, candidate)
    half = Fraction(1, 2)
    return InterimStats(
        baseline=_mean(list(old.values())),
        candidate=_mean(list(new.values())),
        drop=_mean(drops),
        variance=population if within is None else within,
        population_variance=population,
        flip=flip_rate([*baseline.values(), *candidate.values()]),
        cases=len(drops),
        trials=max(map(len, candidate.values())),
        baseline_trials=max(map(len, baseline.values())),
        newly_failing=tuple(sorted(case for case in old if old[case] > half > new[case])),
        newly_passing=tuple(sorted(case for case in old if old[case] < half < new[case])),
    )


def correct_for_judge(stats: InterimStats, j: float, j_error: float) -> InterimStats:
    """The same statistics with the drop that people would have measured, in place of the judge's.

    A judge that misses some failures and imagines others shrinks every drop by the factor J = TPR + TNR - 1 (Youden
    1950), so the true drop is the measured one divided by J (Rogan and Gladen 1978). J is an estimate itself: its
    standard error adds to the variance of the quotient (the delta method).

    Args:
        stats: What the judge's scores show.
        j: The judge's J, from 0 (exclusive) to 1.
        j_error: The standard error of `j`.
    """
    exact_j, j_variance = Fraction(j), Fraction(j_error) ** 2
    drop = stats.drop / exact_j

    def corrected(variance: Fraction | None) -> Fraction | None:
        return None if variance is None else (variance + drop**2 * j_variance) / exact_j**2

    return replace(
        stats,
        drop=drop,
        variance=corrected(stats.variance),
        population_variance=corrected(stats.population_variance),
    )


def sequential_rule(stats: InterimStats, margin: Fraction = MARGIN, measure: str = "") -> GateVerdict | None:
    """The verdict where the trials so far are clear, or None where more are needed.

    It passes where the drop is below `margin` by more than Z standard errors: a drop beyond the margin is unlikely. It
    blocks where the drop exceeds `margin` and is above 0 by more than Z standard errors: that the score did not drop at
    all is unlikely. Squares are compared, so that the arithmetic stays exact.
    """
    if stats.variance is None:
        return None
    spread = Z**2 * stats.variance
    headroom = margin - stats.drop
    if headroom > 0 and headroom**2 > spread:
        return _verdict(stats, passed=True, margin=margin, decided_by="sequential rule", measure=measure)
    if headroom < 0 < stats.drop and stats.drop**2 > spread:
        return _verdict(stats, passed=False, margin=margin, decided_by="sequential rule", measure=measure)
    return None


def plain_rule(stats: InterimStats, margin: Fraction = MARGIN, measure: str = "") -> GateVerdict:
    """Blocks where the estimated drop exceeds `margin`; a drop of exactly `margin` passes."""
    return _verdict(stats, passed=stats.drop <= margin, margin=margin, decided_by="plain rule", measure=measure)


def flip_rate(cases: Iterable[Sequence[Fraction]]) -> Fraction | None:
    """The chance that two trials of a case differ, averaged over the cases with two or more; None without such a case.

    Of a case that passes with probability p, two trials differ with probability 2p(1 - p), which is twice the variance
    of a trial; so twice the sample variance estimates it without bias. For values other than 0 and 1 the same
    number measures their spread.
    """
    spread = [2 * _variance(values) for values in cases if len(values) > 1]
    return _mean(spread) if spread else None


def _verdict(stats: InterimStats, **decision: Any) -> GateVerdict:
    return GateVerdict(**{field.name: getattr(stats, field.name) for field in fields(InterimStats)}, **decision)


def _variance_within(baseline: CaseValues, candidate: CaseValues) -> Fraction | None:
    """The variance of the mean drop over repetitions on the same cases; None where a case has a single trial."""
    sides = [values for side in (baseline, candidate) for values in side.values()]
    if any(len(values) < 2 for values in sides):
        return None
    return sum((_variance(values) / len(values) for values in sides), Fraction()) / len(baseline) ** 2


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction()) / len(values)


def _variance(values: Sequence[Fraction]) -> Fraction:
    """The sample variance (n - 1) of at least two values."""
    n = len(values)
    total, squares = sum(values, Fraction()), sum((value * value for value in values), Fraction())
    return (squares - total**2 / n) / (n - 1)


def _plain(share: Fraction) -> str:
    return f"{100 * float(share):.3g}"


def _below(high: float, margin: Fraction) -> float:
    """`high`, in points, rounded down where rounding up would reach the margin that it is below."""
    return math.floor(high * 10) / 10 if round(high, 1) >= 100 * float(margin) else high


def _points(drop: Fraction, margin: Fraction) -> str:
    """A drop in points, with as many digits as it takes to tell it from the margin."""
    for digits in itertools.count(1):
        if drop == margin or round(100 * drop, digits) != round(100 * margin, digits):
            return f"{float(100 * drop):.{digits}f}"
    raise AssertionError("unreachable")
