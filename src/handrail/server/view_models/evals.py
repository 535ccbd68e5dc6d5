"""Trials and eval runs as table rows and chart points. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeVar

from handrail.evals.store.eval_runs import Trial
from handrail.evals.store.history import CaseResult, EvalRunSummary

COLOURS = ("line-1", "line-2", "line-3")
"""The style sheet's variables for the newest fingerprints; older ones share `OLDER`."""
OLDER = "quiet"
_NO_MODEL = "no model"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A case of one eval run.

    Attributes:
        value: The mean value of its trials, 0 to 1; None if none could be scored.
        worst: The trial with the lowest value.
    """

    case_id: str
    value: float | None
    trials: tuple[Trial, ...]
    worst: Trial

    @property
    def passed(self) -> int:
        """How many of the trials passed every check."""
        return sum(trial.score.passed and trial.error is None for trial in self.trials)


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The mean value, 0 to 1, of a group of trials."""

    name: str
    value: float
    trials: int


def case_rows(trials: Iterable[Trial]) -> list[CaseRow]:
    """A row for each case, the worst first; cases that could not be scored come last."""
    by_case: dict[str, list[Trial]] = {}
    for trial in trials:
        by_case.setdefault(trial.case_id, []).append(trial)
    rows = []
    for case_id, case_trials in by_case.items():
        scored = [trial for trial in case_trials if trial.error is None]
        rows.append(
            CaseRow(
                case_id=case_id,
                value=_mean([trial.value for trial in scored]),
                trials=tuple(case_trials),
                worst=min(scored or case_trials, key=lambda trial: (trial.value, trial.trial)),
            )
        )
    return sorted(rows, key=lambda row: (row.value is None, row.value or 0, row.case_id))


def scores_by_path(trials: Iterable[Trial]) -> list[GroupScore]:
    """The score of the trials on each path, the most frequent path first."""
    groups = _group_scores((trial.path or trial.outcome, trial.value) for trial in trials if trial.error is None)
    return sorted(groups, key=lambda group: (-group.trials, group.name))


def accuracy_by_field(trials: Iterable[Trial]) -> list[GroupScore]:
    """The share of trials in which each field is right, in the order in which the fields first appear."""
    scored = (trial for trial in trials if trial.error is None)
    return _group_scores((name, float(right)) for trial in scored for name, right in trial.score.fields.items())


def fingerprint_colours(agent_hashes: Iterable[str | None]) -> dict[str, str]:
    """A colour for each fingerprint, as `short_fingerprint` shows it; the hashes come newest first."""
    names = dict.fromkeys(short_fingerprint(agent_hash) for agent_hash in agent_hashes)
    return {name: COLOURS[rank] if rank < len(COLOURS) else OLDER for rank, name in enumerate(names)}


def short_fingerprint(agent_hash: str | None) -> str:
    """A fingerprint as pages show it."""
    return agent_hash[:12] if agent_hash else _NO_MODEL


def with_previous(newest_first: Sequence[T]) -> list[tuple[T, T | None]]:
    """Each item with the one before it in time, which follows it in the list; None for the oldest."""
    return list(zip_longest(newest_first, newest_first[1:]))


def change_of(result: CaseResult, previous: CaseResult | None) -> str:
    """`better` or `worse` than in the previous eval run; empty if the value is the same or unknown."""
    if previous is None or result.value is None or previous.value is None or result.value == previous.value:
        return ""
    return "better" if result.value > previous.value else "worse"


def score_points(runs: Sequence[EvalRunSummary]) -> list[dict[str, Any]]:
    """Scores over time, in percent, with two standard errors to either side."""
    points = []
    for run in runs:
        if run.score is not None:
            value, spread = 100 * run.score.mean, 200 * (run.score.error or 0)
            points.append(
                {
                    "at": run.eval_run.started_at,
                    "series": short_fingerprint(run.agent_hash),
                    "value": value,
                    "low": max(0, value - spread),
                    "high": min(100, value + spread),
                }
            )
    return points


def case_points(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """The values of one case over time, in percent. A single case has no standard error."""
    return [
        {
            "at": result.eval_run.started_at,
            "series": short_fingerprint(result.agent_hash),
            "value": 100 * result.value,
            "low": 100 * result.value,
            "high": 100 * result.value,
        }
        for result in results
        if result.value is not None
    ]


def _group_scores(values: Iterable[tuple[str, float]]) -> list[GroupScore]:
    by_name: dict[str, list[float]] = {}
    for name, value in values:
        by_name.setdefault(name, []).append(value)
    return [
        GroupScore(name=name, value=sum(group_values) / len(group_values), trials=len(group_values))
        for name, group_values in by_name.items()
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
