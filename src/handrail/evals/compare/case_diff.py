"""Two eval runs side by side: what became better and worse, case by case, the worst first. Pure."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from handrail.evals.scorers.score import Score, score
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd

Change = Literal["newly-failing", "newly-passing", "same-score-different-output", "path-changed"]
CHANGES: tuple[Change, ...] = ("newly-failing", "newly-passing", "same-score-different-output", "path-changed")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One eval run over the cases that both have. Times in nanoseconds, by trial; `cost` is of one trial of each case.

    `errors` counts the run's trials that the infrastructure failed; they are in none of the other figures.
    """

    score: Score | None
    cost: NanoUsd
    median_ns: int
    p95_ns: int
    trials: int
    errors: int


@dataclass(frozen=True, kw_only=True)
class CaseDiff:
    """One case: its value before and after (means over its trials, 0 to 1), what changed, and the two trials to show.

    Those show the change best: for a case that fell, its best trial before and its worst after; for one that did not
    change, two that did equally well.
    """

    case_id: str
    before: float
    after: float
    changes: frozenset[Change]
    shown: tuple[Trial, Trial]

    @property
    def drop(self) -> float:
        """How much the value fell; negative where it rose."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What separates two eval runs.

    `cases` are those that both could judge, the worst first; `apart` lists the ids of the others: cases of one side
    only, and cases whose every trial on a side the infrastructure failed.
    """

    before: Side
    after: Side
    cases: tuple[CaseDiff, ...]
    apart: tuple[str, ...]


def compare_trials(before: Sequence[Trial], after: Sequence[Trial], outputs: Mapping[str, str] | None = None) -> Diff:
    """The two runs' trials compared. `outputs` are what trials gave, by their run's id.

    A trial without one is compared by what was observed of it. Of cases that fell by the same, those with more changes
    come first, then the id decides.
    """
    left, right = _by_case(before), _by_case(after)
    both = [case_id for case_id in left if left[case_id] and right.get(case_id)]
    kept = set(both)
    cases = [_case(case_id, left[case_id], right[case_id], outputs or {}) for case_id in both]
    return Diff(
        before=_side(before, kept),
        after=_side(after, kept),
        cases=tuple(sorted(cases, key=lambda each: (-each.drop, -len(each.changes), each.case_id))),
        apart=tuple(sorted((left.keys() | right.keys()) - kept)),
    )


def chosen(diff: Diff, wanted: Iterable[Change]) -> tuple[CaseDiff, ...]:
    """The cases with any of these changes; without any, those with a change at all. The worst first."""
    asked = frozenset(wanted) or frozenset(CHANGES)
    return tuple(case for case in diff.cases if case.changes & asked)


def text_diff(before: str, after: str) -> tuple[str, ...]:
    """The lines of a unified diff with three lines around each change; none where the texts are the same."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
    return tuple(lines)


def _by_case(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """The trials that could be judged, by case."""
    found: dict[str, list[Trial]] = {}
    for each in trials:
        found.setdefault(each.case_id, [])
        if each.error is None:
            found[each.case_id].append(each)
    return found


def _case(case_id: str, left: Sequence[Trial], right: Sequence[Trial], outputs: Mapping[str, str]) -> CaseDiff:
    before, after = _mean(left), _mean(right)
    shown = _shown(left, right, before - after)
    changes: set[Change] = set()
    if after < before:
        changes.add("newly-failing")
    elif after > before:
        changes.add("newly-passing")
    elif _said(shown[0], outputs) != _said(shown[1], outputs):
        changes.add("same-score-different-output")
    if {each.path for each in left} != {each.path for each in right}:
        changes.add("path-changed")
    return CaseDiff(case_id=case_id, before=before, after=after, changes=frozenset(changes), shown=shown)


def _shown(left: Sequence[Trial], right: Sequence[Trial], drop: float) -> tuple[Trial, Trial]:
    if drop == 0:
        first = min(left, key=lambda each: each.trial)
        return first, min(right, key=lambda each: (abs(each.value - first.value), each.trial))
    # Of equal trials the first, on both sides.
    sign = 1 if drop > 0 else -1
    return (
        min(left, key=lambda each: (-sign * each.value, each.trial)),
        min(right, key=lambda each: (sign * each.value, each.trial)),
    )


def _said(trial: Trial, outputs: Mapping[str, str]) -> object:
    return outputs.get(trial.run_id, trial.observed)


def _mean(trials: Sequence[Trial]) -> float:
    return math.fsum(each.value for each in trials) / len(trials)


def _side(trials: Sequence[Trial], kept: set[str]) -> Side:
    judged = {case_id: found for case_id, found in _by_case(trials).items() if case_id in kept}
    durations = sorted(each.duration_ns for found in judged.values() for each in found)
    cost = sum(sum(each.cost for each in found) / len(found) for found in judged.values())
    return Side(
        score=score([_mean(found) for found in judged.values()]) if judged else None,
        cost=NanoUsd(round(cost)),
        median_ns=_percentile(durations, 0.5),
        p95_ns=_percentile(durations, 0.95),
        trials=len(durations),
        errors=sum(each.error is not None for each in trials),
    )


def _percentile(found: Sequence[int], share: float) -> int:
    """The smallest that at least this share of them does not exceed; 0 for none."""
    return found[max(0, math.ceil(share * len(found)) - 1)] if found else 0
