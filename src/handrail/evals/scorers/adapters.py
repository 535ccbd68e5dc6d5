"""Evaluators of pydantic-evals as scorers. They are recognised by their `evaluate(ctx)`, without importing it."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handrail.evals.scorer import ScorerContext, ScoreResult


@dataclass(frozen=True, kw_only=True)
class EvaluatorContext:
    """What an evaluator receives, with the attributes of pydantic-evals' EvaluatorContext; `duration` is in seconds.

    `output` is what the eval spec's `observe` extracted, so it is comparable to `expected_output`, which is the case's
    `expect`.
    """

    name: str
    inputs: str
    metadata: Mapping[str, Any]
    expected_output: Mapping[str, Any]
    output: Mapping[str, Any]
    duration: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def is_evaluator(scorer: Any) -> bool:
    """Whether it has an `evaluate` method and is not itself callable."""
    return not callable(scorer) and callable(getattr(scorer, "evaluate", None))


def as_scorer(scorer: Any) -> Callable[[ScorerContext], Any]:
    """An evaluator wrapped as a scorer; anything else is returned as it is."""
    return _wrap(scorer) if is_evaluator(scorer) else scorer


def _wrap(evaluator: Any) -> Callable[[ScorerContext], Awaitable[ScoreResult]]:
    async def scorer(context: ScorerContext) -> ScoreResult:
        case = context.case
        result = evaluator.evaluate(
            EvaluatorContext(
                name=case.id,
                inputs=case.input,
                metadata={"source": case.source, "date": case.date, "tags": list(case.tags)},
                expected_output=case.expect,
                output=context.observed,
                duration=context.duration_ns / 1e9,
                metrics={"cost": context.cost / 1e9},
            )
        )
        return _to_score_result(evaluator, await result if inspect.isawaitable(result) else result)

    return scorer


def _to_score_result(evaluator: Any, result: Any) -> ScoreResult:
    """Maps an evaluator's bools to fields, numbers to scores, and labels and reasons to notes."""
    fields: dict[str, bool] = {}
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    results = result if isinstance(result, Mapping) else {_evaluator_name(evaluator): result}
    for name, entry in results.items():
        value, reason = getattr(entry, "value", entry), getattr(entry, "reason", None)
        match value:
            case bool():
                fields[name] = value
            case int() | float():
                scores[name] = float(value)
            case str():
                notes[name] = value
            case _:
                raise TypeError(f"{name} is {type(value).__name__}, not a bool, a number or a text")
        if reason:
            notes[name] = f"{value}: {reason}" if isinstance(value, str) else str(reason)
    return ScoreResult(fields=fields, scores=scores, notes=notes)


def _evaluator_name(evaluator: Any) -> str:
    get_name = getattr(evaluator, "get_default_evaluation_name", None)
    return str(get_name()) if callable(get_name) else type(evaluator).__name__
