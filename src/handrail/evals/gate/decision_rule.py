"""The gate's rule: whether a candidate's trials, beside the baseline's on the same cases, let it pass.

A candidate is looked at after some trials of all cases. `compared` says what is known by then, `sequential_rule`
decides where that is enough, and `plain_rule` decides at the last look, so that no drop above the margin ever passes.
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
"""The most that a score may fall, as an absolute share: 3 points."""
Z = 2
"""Standard errors to either side of a drop: about 95%."""

_SMALL = 100
_SEEN = NormalDist().inv_cdf(0.8)
_DIGITS = 1_000_000

Sides: TypeAlias = Mapping[str, Sequence[Fraction]]
"""A case's id to the values of its trials, each 0 to 1."""
Margin: TypeAlias = Callable[[Fraction], Fraction]
"""The most that a score may fall, as an absolute share, by the baseline's score."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known after some trials. Shares are exact, 0 to 1; `drop` is negative where the score rose.

    `error` is the drop's standard error that the rule goes by: within the cases, which are the same on both sides, or
    over the population of cases that these were drawn from (`population_error`) where one side has a single trial of
    some case. None where a single case leaves nothing to reckon with. `flip` is the chance that two trials of a case
    by the same agent differ, measured on both sides; None where no case has two of one side. `trials` and
    `baseline_trials` count those of one case, the most there are.

    `newly_failing` and `newly_passing` are the ids, sorted, of the cases that did better than half before and worse
    than half now, and the other way round.
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
        return None if self.variance is None else math.sqrt(self.variance)

    @property
    def population_error(self) -> float | None:
        return None if self.population_variance is None else math.sqrt(self.population_variance)

    def detectable(self, margin: Fraction) -> float | None:
        """The smallest true drop that the gate blocks four times in five after these trials; None without flips."""
        if self.flip is None:
            return None
        within = float(self.flip) / 2 * (1 / self.trials + 1 / self.baseline_trials) / self.cases
        return float(margin) + _SEEN * math.sqrt(within)


@dataclass(frozen=True, kw_only=True)
class GateVerdict(Look):
    """What the gate said and why; `measure` names what was compared, where that is not the whole score."""

    passed: bool
    margin: Fraction
    decided_by: Literal["sequential rule", "plain rule"]
    measure: str = ""

    def __str__(self) -> str:
        said = [self._movement(), self._certainty(), "passed" if self.passed else "blocked"]
        text = f"{', '.join(said[:2]) if said[1] else said[0]}; {said[2]}"
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
            return "alike in every trial"
        if self.passed:
            return f"95% sure {'it' if self.drop > 0 else 'any drop'} is less than {_below(high, self.margin):.1f}"
        return f"95% sure it is more than {low:.1f}"

    def _warning(self) -> str:
        if self.cases >= _SMALL:
            return ""
        seen = self.detectable(self.margin)
        if seen is None:
            return f"; a set of {self.cases} cannot see small drops, since one case is {100 / self.cases:.1f} points"
        return f"; a set of {self.cases} sees drops of {100 * seen:.1f} points or more, smaller ones by luck"


def absolute(share: Fraction) -> Margin:
    """A margin in points: the same whatever the baseline's score."""
    return lambda _baseline: share


def relative(share: Fraction) -> Margin:
    """A margin as a share of the baseline's score."""
    return lambda baseline: share * baseline


def values_of(trials: Iterable[tuple[str, float]]) -> dict[str, list[Fraction]]:
    """The values of each case's trials, from (case id, value) for every trial; exact to six digits."""
    found: defaultdict[str, list[Fraction]] = defaultdict(list)
    for case_id, value in trials:
        found[case_id].append(Fraction(value).limit_denominator(_DIGITS))
    return dict(found)


def compared(baseline: Sides, candidate: Sides) -> Look:
    """What the trials of both sides say. Raises BadInput where they are not of the same cases, or of none."""
    if baseline.keys() != candidate.keys():
        apart = ", ".join(sorted(baseline.keys() ^ candidate.keys())[:5])
        raise BadInput(f"gate: the two sides were not tried on the same cases ({apart}); set a baseline on this set")
    if not baseline:
        raise BadInput("gate: there are no cases to compare; add some to the set")
    old, new = ({case: _mean(values) for case, values in side.items()} for side in (baseline, candidate))
    drops = [old[case] - new[case] for case in old]
    population = None if len(drops) < 2 else _variance(drops) / len(drops)
    within = _within(baseline, candidate)
    half = Fraction(1, 2)
    return Look(
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


def deflated(look: Look, j: float, j_error: float) -> Look:
    """The look at the truth behind a judge's scores, which a judge of `j` = TPR + TNR - 1 shrinks.

    The true drop is the measured one divided by `j` (Rogan and Gladen 1978); its variance grows by j's own standard
    error (the delta method).
    """
    share, uncertain = Fraction(j), Fraction(j_error) ** 2
    drop = look.drop / share

    def grown(variance: Fraction | None) -> Fraction | None:
        return None if variance is None else (variance + drop**2 * uncertain) / share**2

    return replace(
        look,
        drop=drop,
        variance=grown(look.variance),
        population_variance=grown(look.population_variance),
    )


def sequential_rule(look: Look, margin: Fraction = MARGIN, measure: str = "") -> GateVerdict | None:
    """Passes when drop + Z errors lie below `margin`, blocks when the drop exceeds it and drop - Z errors lie above 0.

    None where that is not known yet: look again after more trials. Decided in exact arithmetic.
    """
    if look.variance is None:
        return None
    spread = Z**2 * look.variance
    room, fallen = margin - look.drop, look.drop
    if room > 0 and room**2 > spread:
        return _verdict(look, passed=True, margin=margin, decided_by="sequential rule", measure=measure)
    if room < 0 and fallen > 0 and fallen**2 > spread:
        return _verdict(look, passed=False, margin=margin, decided_by="sequential rule", measure=measure)
    return None


def plain_rule(look: Look, margin: Fraction = MARGIN, measure: str = "") -> GateVerdict:
    """Blocks when the mean score per case fell by more than `margin`; a drop of exactly `margin` passes."""
    return _verdict(look, passed=look.drop <= margin, margin=margin, decided_by="plain rule", measure=measure)


def flip_rate(cases: Iterable[Sequence[Fraction]]) -> Fraction | None:
    """The chance that two trials of a case differ, the mean over the cases with two or more; None where none has.

    For right and wrong it is unbiased: twice the sample variance. For other values it is that number, which says the
    same of the spread.
    """
    spread = [2 * _variance(values) for values in cases if len(values) > 1]
    return _mean(spread) if spread else None


def _verdict(look: Look, **decided: Any) -> GateVerdict:
    return GateVerdict(**{each.name: getattr(look, each.name) for each in fields(Look)}, **decided)


def _within(baseline: Sides, candidate: Sides) -> Fraction | None:
    """The variance of the mean drop from trial to trial, the cases being given; None where a case has one trial."""
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
    """`high`, in points, rounded down where rounding would carry it to the margin that it lies below."""
    return math.floor(high * 10) / 10 if round(high, 1) >= 100 * float(margin) else high


def _points(drop: Fraction, margin: Fraction) -> str:
    """A drop in points, with as many digits as it takes to tell it from a margin that it is not."""
    for digits in itertools.count(1):
        if drop == margin or round(100 * drop, digits) != round(100 * margin, digits):
            return f"{float(100 * drop):.{digits}f}"
    raise AssertionError("unreachable")
