"""What a trial got wrong, in words."""

from collections.abc import Mapping
from typing import Any

from handrail.evals.store.eval_runs import Trial
from handrail.kernel.text import format_json


def describe_mismatches(expected: Mapping[str, Any], trial: Trial) -> str:
    """The fields that a trial got wrong: what was expected and observed, or else what the scorer noted."""
    wrong = [name for name, right in trial.score.fields.items() if not right]
    return ", ".join(f"{name}: {_describe(expected, trial, name)}" for name in wrong)


def _describe(expected: Mapping[str, Any], trial: Trial, name: str) -> str:
    if name in expected:
        return f"{format_json(expected[name])} expected, {_observed(trial, name)}"
    return trial.score.notes.get(name, "does not hold")


def _observed(trial: Trial, name: str) -> str:
    if name not in trial.observed:
        return f"nothing found ({trial.outcome})"
    return f"{format_json(trial.observed[name])} found"
