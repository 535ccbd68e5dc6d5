"""What a scorer receives and returns.

A scorer is any callable that takes a `ScorerContext` and returns, directly or when awaited: True or False (a field that
holds or not), a number from 0 to 1 (a score, passed from 0.5 on), a text (a note, which decides nothing), or a
`ScoreResult`. Evaluators of pydantic-evals work as scorers too.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from handrail.evals.eval_set.model import Case
from handrail.kernel.money import NanoUsd

PASS_THRESHOLD = 0.5
"""The score from which a trial passes where its scorer sets no threshold of its own."""


@dataclass(frozen=True, kw_only=True)
class ScorerContext:
    """One trial, as a scorer receives it.

    Args:
        case: The case that was tried.
        outcome: The outcome of the run, or what a plain callable returned.
        observed: What the eval spec's `observe` extracted from the outcome, by field.
        deps: The trial's own dependencies in their state after the run; None when the eval spec makes none.
        duration_ns: How long the trial took, in nanoseconds.
        cost: What the trial cost, in billionths of a dollar.
    """

    case: Case
    outcome: Any
    observed: Mapping[str, Any]
    deps: Any
    duration_ns: int
    cost: NanoUsd


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """What a scorer found out about a trial.

    Args:
        fields: What holds and what does not, by name; one False fails the trial.
        scores: Numbers from 0 to 1, by name.
        notes: Explanations for people, by name; they decide nothing.
        threshold: A score below it fails the trial; with None, scores are grades that count as they are.
    """

    fields: Mapping[str, bool] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = PASS_THRESHOLD


ScorerOutput: TypeAlias = bool | float | str | ScoreResult
"""What a scorer returns: whether the trial passes, a number from 0 to 1, a note, or several of these."""
Scorer: TypeAlias = Callable[[ScorerContext], ScorerOutput | Awaitable[ScorerOutput]]
"""Scores a trial; may be asynchronous."""


class Evaluator(Protocol):
    """An evaluator of pydantic-evals, which works as a scorer too."""

    def evaluate(self, ctx: Any, /) -> Any:
        """Scores one trial.

        Args:
            ctx: The trial, with the attributes of the context that pydantic-evals passes.

        Returns:
            A result as pydantic-evals defines it.
        """
        ...
