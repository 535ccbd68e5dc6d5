"""Evals: run an agent on a frozen set of cases, score the outcomes, and gate changes on the score.

Example::

    from handrail.evals import EvalSpec, exact, within

    support_evals = EvalSpec(
        agent=support,
        cases=Path(__file__).parent / "cases.yaml",
        observe=lambda outcome: outcome.output.model_dump() if isinstance(outcome, Answered) else {},
        scorers=(exact(), within(seconds=20)),
    )

`handrail eval run support` finds the spec beside its agent; `run_evals` runs it from code.

This module is part of the public API; the modules below it are not.
"""

from .errors import JudgeFailed, NotRecorded, ScorerFailed, SpendingLimit
from .eval_set.model import Case
from .runner.eval_run import EvalReport, run_evals
from .runner.response_cache import RecordedResponses, ResponseCache
from .scorer import Evaluator, Scorer, ScorerContext, ScoreResult, ScorerOutput
from .scorers.fields import Comparator, FieldScorer, close, exact, fields, normalised
from .scorers.llm_judge import Criterion, Judge, Rubric, judge
from .scorers.score import Score, TrialScore
from .scorers.text import contains, json_schema, lacks, matches
from .scorers.trial_checks import at_least, end_state, graded, within
from .spec import EvalSpec
from .store.eval_runs import Trial

__all__ = [
    "Case",
    "Comparator",
    "Criterion",
    "EvalReport",
    "EvalSpec",
    "Evaluator",
    "FieldScorer",
    "Judge",
    "JudgeFailed",
    "NotRecorded",
    "RecordedResponses",
    "ResponseCache",
    "Rubric",
    "Score",
    "ScoreResult",
    "Scorer",
    "ScorerContext",
    "ScorerFailed",
    "ScorerOutput",
    "SpendingLimit",
    "Trial",
    "TrialScore",
    "at_least",
    "close",
    "contains",
    "end_state",
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
]
