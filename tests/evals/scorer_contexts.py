"""Builders of cases, scorer contexts and trials."""

import datetime as dt
from datetime import timedelta
from typing import Any

from handrail.evals.eval_set.model import Case
from handrail.evals.scorer import ScorerContext
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd
from handrail.runs.outcome import Answered, Facts

ON = dt.date(2026, 11, 22)


def case(case_id: str = "late", text: str = "Where is it?", **expect: Any) -> Case:
    return Case(id=case_id, input=text, expect=expect or {"category": "delivery"}, source="this test", date=ON)


def answered(message: str) -> Answered[str]:
    return Answered(
        output=message, message=message, facts=Facts(run_id="run_1", trace_id="0" * 32, duration=timedelta(seconds=1))
    )


def make_context(
    observed: dict[str, Any],
    *,
    expect: dict[str, Any] | None = None,
    message: str = "",
    deps: Any = None,
    seconds: float = 1.0,
    cost: int = 0,
) -> ScorerContext:
    return ScorerContext(
        case=case(**(expect or {})),
        outcome=answered(message),
        observed=observed,
        deps=deps,
        duration_ns=round(seconds * 1e9),
        cost=NanoUsd(cost),
    )


def trial(case_id: str, passed: bool, number: int = 1, **overrides: Any) -> Trial:
    fields: dict[str, Any] = {
        "run_id": f"run_{case_id}_{number}",
        "outcome": "answered",
        "path": "happy",
        "score": TrialScore({"category": passed}),
        "observed": {"category": "delivery" if passed else "other"},
        "duration_ns": 1_000_000_000,
        "cost": NanoUsd(0),
        "model": "function:sort",
        "agent_hash": "a" * 64,
    }
    return Trial(case_id=case_id, trial=number, **{**fields, **overrides})
