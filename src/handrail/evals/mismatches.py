"""What a trial got wrong, in words."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from handrail.evals.store.eval_runs import Trial


def what_differed(expected: Mapping[str, Any], trial: Trial) -> str:
    """The fields that a trial got wrong: what the case expects and what was observed, else what their scorer noted."""
    wrong = [name for name, right in trial.verdict.fields.items() if not right]
    return ", ".join(f"{name}: {_difference(expected, trial, name)}" for name in wrong)


def show_value(value: Any) -> str:
    """A field's value as it stands in a set."""
    return json.dumps(value, ensure_ascii=False)


def _difference(expected: Mapping[str, Any], trial: Trial, name: str) -> str:
    if name in expected:
        return f"{show_value(expected[name])} expected, {_observed(trial, name)}"
    return trial.verdict.notes.get(name, "does not hold")


def _observed(trial: Trial, name: str) -> str:
    if name not in trial.observed:
        return f"nothing found ({trial.outcome})"
    return f"{show_value(to_jsonable_python(trial.observed[name], fallback=str))} found"
