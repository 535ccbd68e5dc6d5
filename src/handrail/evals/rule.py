"""The gate's rule: whether a candidate's scores, beside the baseline's on the same cases, let it pass."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from handrail.kernel import BadInput

MARGIN = Fraction(3, 100)
"""The most that a score may fall, as an absolute share: 3 points."""

_SMALL = 100
"""Below this many cases one case weighs more than a point, and a drop of a point or two is one or two cases."""


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate said and why. Shares are exact, 0 to 1; `drop` is negative where the score rose.

    `newly_failing` and `newly_passing` are the ids, sorted, of the cases that score lower and higher than before.
    """

    passed: bool
    baseline: Fraction
    candidate: Fraction
    drop: Fraction
    margin: Fraction
    newly_failing: tuple[str, ...]
    newly_passing: tuple[str, ...]
    cases: int

    def __str__(self) -> str:
        says = f"{self._movement()}; {'up to' if self.passed else 'more than'} {100 * float(self.margin):g} points "
        says += "may be lost" if self.passed else "blocks"
        if self.cases < _SMALL:
            one = f"{100 / self.cases:.1f} points"
            says += f"; a set of {self.cases} cannot see small drops, since one case is {one}"
        return f"passed: {says}" if self.passed else says

    def _movement(self) -> str:
        before, after = (f"{100 * float(share):.1f}%" for share in (self.baseline, self.candidate))
        if self.drop == 0:
            return f"score stayed at {before}"
        verb = "fell" if self.drop > 0 else "rose"
        return f"score {verb} {_points(abs(self.drop), self.margin)} points, from {before} to {after}"


def plain_rule(
    baseline: Mapping[str, Fraction], candidate: Mapping[str, Fraction], margin: Fraction = MARGIN
) -> GateVerdict:
    """Blocks when the mean score per case fell by more than `margin`; a drop of exactly `margin` passes.

    Both sides map case ids to scores from 0 to 1. Raises BadInput where they are not of the same cases, or of none.
    """
    if baseline.keys() != candidate.keys():
        apart = ", ".join(sorted(baseline.keys() ^ candidate.keys())[:5])
        raise BadInput(f"gate: the two sides were not tried on the same cases ({apart}); set a baseline on this set")
    if not baseline:
        raise BadInput("gate: there are no cases to compare; add some to the set")
    before, after = (sum(side.values(), Fraction()) / len(side) for side in (baseline, candidate))
    drop = before - after
    return GateVerdict(
        passed=drop <= margin,
        baseline=before,
        candidate=after,
        drop=drop,
        margin=margin,
        newly_failing=tuple(sorted(case for case in baseline if candidate[case] < baseline[case])),
        newly_passing=tuple(sorted(case for case in baseline if candidate[case] > baseline[case])),
        cases=len(baseline),
    )


def case_scores(trials: Iterable[tuple[str, bool]]) -> dict[str, Fraction]:
    """The share of each case's trials that passed, from (case id, passed) for every trial."""
    results: defaultdict[str, list[bool]] = defaultdict(list)
    for case_id, passed in trials:
        results[case_id].append(passed)
    return {case_id: Fraction(sum(passed), len(passed)) for case_id, passed in results.items()}


def _points(drop: Fraction, margin: Fraction) -> str:
    """A drop in points, with as many digits as it takes to tell it from a margin that it is not."""
    for digits in itertools.count(1):
        if drop == margin or round(100 * drop, digits) != round(100 * margin, digits):
            return f"{float(100 * drop):.{digits}f}"
    raise AssertionError("unreachable")
