"""Trials and eval runs as the rows and points of a page. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from handrail.evals.runner.history import CaseAt, EvalRunSummary
from handrail.evals.store.eval_runs import Trial

COLOURS = ("line-1", "line-2", "line-3")
"""The style sheet's variables for the newest fingerprints; older ones share `OLDER`."""
OLDER = "quiet"
_NO_MODEL = "no model"


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A case of one eval run: its mean value, 0 to 1, None where no trial could be judged, and its worst trial."""

    case_id: str
    value: float | None
    trials: tuple[Trial, ...]
    worst: Trial

    @property
    def right(self) -> int:
        """How many of the trials got everything right."""
        return sum(each.verdict.passed and each.error is None for each in self.trials)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How well the trials of one kind did: their mean value, 0 to 1."""

    name: str
    value: float
    trials: int


def case_rows(trials: Iterable[Trial]) -> list[CaseRow]:
    """A row for each case, the worst first; those that could not be judged at the end."""
    by_case: dict[str, list[Trial]] = {}
    for each in trials:
        by_case.setdefault(each.case_id, []).append(each)
    rows = []
    for case_id, found in by_case.items():
        judged = [each for each in found if each.error is None]
        rows.append(
            CaseRow(
                case_id=case_id,
                value=_mean([each.value for each in judged]),
                trials=tuple(found),
                worst=min(judged or found, key=lambda each: (each.value, each.trial)),
            )
        )
    return sorted(rows, key=lambda row: (row.value is None, row.value or 0, row.case_id))


def by_path(trials: Iterable[Trial]) -> list[Share]:
    """How well the judged trials did by the path that they ended on, the most frequent first."""
    shares = _shares((each.path or each.outcome, each.value) for each in trials if each.error is None)
    return sorted(shares, key=lambda share: (-share.trials, share.name))


def by_field(trials: Iterable[Trial]) -> list[Share]:
    """The share of judged trials in which each field is right, in the order in which the fields first appear."""
    judged = (each for each in trials if each.error is None)
    return _shares((name, float(right)) for each in judged for name, right in each.verdict.fields.items())


def colours(agent_hashes: Iterable[str | None]) -> dict[str, str]:
    """A colour for each fingerprint, from the newest on: its first characters, since that is how pages name it."""
    known = dict.fromkeys(name_of(each) for each in agent_hashes)
    return {name: COLOURS[place] if place < len(COLOURS) else OLDER for place, name in enumerate(known)}


def name_of(agent_hash: str | None) -> str:
    """A fingerprint as pages show it."""
    return agent_hash[:12] if agent_hash else _NO_MODEL


def score_points(runs: Sequence[EvalRunSummary]) -> list[dict[str, Any]]:
    """The points of a chart of scores over time, in percent, with two standard errors to either side."""
    points = []
    for run in runs:
        if run.score is not None:
            value, spread = 100 * run.score.mean, 200 * (run.score.error or 0)
            points.append(
                {
                    "at": run.eval_run.started_at,
                    "part": name_of(run.agent_hash),
                    "value": value,
                    "low": max(0, value - spread),
                    "high": min(100, value + spread),
                }
            )
    return points


def case_points(found: Sequence[CaseAt]) -> list[dict[str, Any]]:
    """The points of a chart of one case over time, in percent; a single case has no spread to show."""
    return [
        {
            "at": each.eval_run.started_at,
            "part": name_of(each.agent_hash),
            "value": 100 * each.value,
            "low": 100 * each.value,
            "high": 100 * each.value,
        }
        for each in found
        if each.value is not None
    ]


def _shares(found: Iterable[tuple[str, float]]) -> list[Share]:
    values: dict[str, list[float]] = {}
    for name, value in found:
        values.setdefault(name, []).append(value)
    return [Share(name=name, value=sum(each) / len(each), trials=len(each)) for name, each in values.items()]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
