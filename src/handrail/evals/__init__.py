"""Evals: run a frozen set of cases through an agent, score the outcomes, and gate changes on the result.

This module is part of the public API; the packages below it are not.
"""

from .runner.eval_run import EvalReport, run_evals
from .scorers.base import Scored, Seen
from .scorers.builtin import (
    at_least,
    close,
    contains,
    exact,
    fields,
    graded,
    json_schema,
    lacks,
    matches,
    normalised,
    within,
    world,
)
from .scorers.llm_judge import Criterion, Judge, Rubric, judge
from .spec import EvalSpec

__all__ = [
    "Criterion",
    "EvalReport",
    "EvalSpec",
    "Judge",
    "Rubric",
    "Scored",
    "Seen",
    "at_least",
    "close",
    "contains",
    "exact",
    "fields",
    "graded",
    "json_schema",
    "judge",
    "lacks",
    "matches",
    "normalised",
    "run_evals",
    "within",
    "world",
]
