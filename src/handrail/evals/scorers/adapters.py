"""Evaluators of pydantic-evals as scorers, by their shape: an `evaluate(ctx)` and nothing imported for it."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import Scored, Seen


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an evaluator reads, under the names of pydantic-evals' EvaluatorContext; `duration` is in seconds.

    `output` is what the set's `observe` took, so that `expected_output`, the case's expectations, is of its kind.
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
    """Whether it has an evaluator's shape and is not callable itself."""
    return not callable(scorer) and callable(getattr(scorer, "evaluate", None))


def as_scorer(scorer: Any) -> Callable[[Seen], Any]:
    """`scorer` as a callable of a trial; what is no evaluator is one already."""
    return _borrowed(scorer) if is_evaluator(scorer) else scorer


def _borrowed(evaluator: Any) -> Callable[[Seen], Awaitable[Scored]]:
    async def scorer(seen: Seen) -> Scored:
        context = Context(
            name=seen.case.id,
            inputs=seen.case.input,
            metadata={"source": seen.case.source, "date": seen.case.date, "tags": list(seen.case.tags)},
            expected_output=seen.case.expect,
            output=seen.observed,
            duration=seen.duration_ns / 1e9,
            metrics={"cost": seen.cost / 1e9},
        )
        said = evaluator.evaluate(context)
        return _translated(evaluator, await said if inspect.isawaitable(said) else said)

    return scorer


def _translated(evaluator: Any, said: Any) -> Scored:
    """Its bools are fields, its numbers scores, its texts notes; a reason is a note beside them."""
    fields: dict[str, bool] = {}
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    for name, found in (said if isinstance(said, Mapping) else {_name(evaluator): said}).items():
        value, reason = getattr(found, "value", found), getattr(found, "reason", None)
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
    return Scored(fields=fields, scores=scores, notes=notes)


def _name(evaluator: Any) -> str:
    named = getattr(evaluator, "get_default_evaluation_name", None)
    return str(named()) if callable(named) else type(evaluator).__name__
