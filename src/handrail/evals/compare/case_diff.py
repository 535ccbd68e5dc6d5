"""Compares two eval runs case by case, from the largest drop to the largest improvement. Pure functions."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from handrail.evals.scorers.score import Score, mean_score
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd

ChangeKind = Literal["newly-failing", "newly-passing", "same-score-different-output", "path-changed"]
CHANGE_KINDS: tuple[ChangeKind, ...] = ("newly-failing", "newly-passing", "same-score-different-output", "path-changed")


@dataclass(frozen=True, kw_only=True)
class EvalRunStats:
    """The figures of one eval run over the cases that both runs scored.

    Durations are of single trials, in nanoseconds. `cost` is that of one trial of each case. `errors` counts the run's
    trials that failed because of the infrastructure; they are in none of the other figures.
    """

    score: Score | None
    cost: NanoUsd
    median_ns: int
    p95_ns: int
    trials: int
    errors: int


@dataclass(frozen=True, kw_only=True)
class CaseDiff:
    """One case before and after: its mean value over its trials (0 to 1), what changed, and one trial of each run.

    The example trials show the change best: for a case that got worse, its best trial before and its worst after; for
    one with the same value, two that did equally well.
    """

    case_id: str
    before: float
    after: float
    changes: frozenset[ChangeKind]
    example_trials: tuple[Trial, Trial]

    @property
    def drop(self) -> float:
        """By how much the value fell; negative where it rose."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True)
class EvalRunDiff:
    """How two eval runs differ.

    `cases` are those that both runs scored, the worst first; `not_compared` lists the ids of the others, which only one
    run has, or of which the infrastructure failed every trial of a run.
    """

    before: EvalRunStats
    after: EvalRunStats
    cases: tuple[CaseDiff, ...]
    not_compared: tuple[str, ...]


def compare_trials(
    before: Sequence[Trial], after: Sequence[Trial], outputs: Mapping[str, str] | None = None
) -> EvalRunDiff:
    """Compares the trials of two eval runs.

    Args:
        before: The trials of the first.
        after: The trials of the second.
        outputs: The output of trials, by the id of their run; a trial without one is compared by what was observed.

    Returns:
        The differences. Of cases that got worse by the same amount, those with more changes come first, then by id.
    """
    left, right = _scored_by_case(before), _scored_by_case(after)
    shared = [case_id for case_id in left if left[case_id] and right.get(case_id)]
    compared = set(shared)
    cases = [_diff_case(case_id, left[case_id], right[case_id], outputs or {}) for case_id in shared]
    return EvalRunDiff(
        before=_stats(before, compared),
        after=_stats(after, compared),
        cases=tuple(sorted(cases, key=lambda case: (-case.drop, -len(case.changes), case.case_id))),
        not_compared=tuple(sorted((left.keys() | right.keys()) - compared)),
    )


def filter_cases(diff: EvalRunDiff, kinds: Iterable[ChangeKind]) -> tuple[CaseDiff, ...]:
    """The cases with any of these kinds of change, the worst first; without kinds, those with any change."""
    wanted = frozenset(kinds) or frozenset(CHANGE_KINDS)
    return tuple(case for case in diff.cases if case.changes & wanted)


def diff_lines(before: str, after: str) -> tuple[str, ...]:
    """The lines of a unified diff with three lines of context; none when the texts are equal."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
    return tuple(lines)


def _scored_by_case(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """The trials that could be scored, by case; a case of which none could has an empty list."""
    by_case: dict[str, list[Trial]] = {}
    for trial in trials:
        scored = by_case.setdefault(trial.case_id, [])
        if trial.error is None:
            scored.append(trial)
    return by_case


def _diff_case(case_id: str, left: Sequence[Trial], right: Sequence[Trial], outputs: Mapping[str, str]) -> CaseDiff:
    before, after = _mean_value(left), _mean_value(right)
    examples = _example_trials(left, right, before - after)
    changes: set[ChangeKind] = set()
    if after < before:
        changes.add("newly-failing")
    elif after > before:
        changes.add("newly-passing")
    elif _output(examples[0], outputs) != _output(examples[1], outputs):
        changes.add("same-score-different-output")
    if {trial.path for trial in left} != {trial.path for trial in right}:
        changes.add("path-changed")
    return CaseDiff(case_id=case_id, before=before, after=after, changes=frozenset(changes), example_trials=examples)


def _example_trials(left: Sequence[Trial], right: Sequence[Trial], drop: float) -> tuple[Trial, Trial]:
    if drop == 0:
        first = min(left, key=lambda trial: trial.trial)
        return first, min(right, key=lambda trial: (abs(trial.value - first.value), trial.trial))
    # The best before and the worst after, or the reverse where the value rose; of equal trials the first.
    sign = 1 if drop > 0 else -1
    return (
        min(left, key=lambda trial: (-sign * trial.value, trial.trial)),
        min(right, key=lambda trial: (sign * trial.value, trial.trial)),
    )


def _output(trial: Trial, outputs: Mapping[str, str]) -> object:
    return outputs.get(trial.run_id, trial.observed)


def _mean_value(trials: Sequence[Trial]) -> float:
    return math.fsum(trial.value for trial in trials) / len(trials)


def _stats(trials: Sequence[Trial], compared: set[str]) -> EvalRunStats:
    by_case = {case_id: scored for case_id, scored in _scored_by_case(trials).items() if case_id in compared}
    durations = sorted(trial.duration_ns for scored in by_case.values() for trial in scored)
    cost = sum(sum(trial.cost for trial in scored) / len(scored) for scored in by_case.values())
    return EvalRunStats(
        score=mean_score([_mean_value(scored) for scored in by_case.values()]) if by_case else None,
        cost=NanoUsd(round(cost)),
        median_ns=_percentile(durations, 0.5),
        p95_ns=_percentile(durations, 0.95),
        trials=len(durations),
        errors=sum(trial.error is not None for trial in trials),
    )


def _percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of them does not exceed (nearest rank); 0 for none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0
