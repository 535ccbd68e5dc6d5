"""Scorers of a trial as a whole: its time and cost, and the state it leaves behind; and thresholds for any scorer."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from handrail.evals.scorer import Evaluator, Scorer, ScorerContext, ScoreResult, ScorerOutput
from handrail.kernel.errors import BadInput
from handrail.kernel.money import NanoUsd, format_usd, nano_usd

from .score import needs_deps, run_scorer, scorer_name


@dataclass(frozen=True)
class Within:
    """Limits on a trial's time and cost; its fields are `latency` and `cost`."""

    nanoseconds: int | None
    cost: NanoUsd | None
    name: str = "within"

    def __call__(self, context: ScorerContext) -> ScoreResult:
        """Holds up to and including the limit; a note says by how much it was missed."""
        fields: dict[str, bool] = {}
        notes: dict[str, str] = {}
        if self.nanoseconds is not None:
            fields["latency"] = context.duration_ns <= self.nanoseconds
            notes["latency"] = f"{context.duration_ns / 1e9:.3f} s of {self.nanoseconds / 1e9:g} s"
        if self.cost is not None:
            fields["cost"] = context.cost <= self.cost
            notes["cost"] = f"{format_usd(context.cost)} of {format_usd(self.cost)}"
        return ScoreResult(fields=fields, notes={name: note for name, note in notes.items() if not fields[name]})


@dataclass(frozen=True)
class EndState:
    """Checks the trial's deps after its run has ended."""

    needs_deps: ClassVar[bool] = True
    check: Callable[..., ScorerOutput | Awaitable[ScorerOutput]]
    name: str

    def __call__(self, context: ScorerContext) -> ScorerOutput | Awaitable[ScorerOutput]:
        """Fails a trial that ended before it had deps."""
        if context.deps is None:
            return ScoreResult(fields={self.name: False}, notes={self.name: "the run ended before it had deps"})
        return self.check(context.deps, context.case)


@dataclass(frozen=True)
class Thresholded:
    """Another scorer whose scores pass from a different threshold on, or count as grades when it is None."""

    scorer: Any
    threshold: float | None

    @property
    def name(self) -> str:
        """The name of the other scorer."""
        return scorer_name(self.scorer)

    @property
    def needs_deps(self) -> bool:
        """Whether the other scorer needs deps."""
        return needs_deps(self.scorer)

    async def __call__(self, context: ScorerContext) -> ScoreResult:
        """The other scorer's result with this threshold."""
        return replace(await run_scorer(self.scorer, context), threshold=self.threshold)


def within(*, seconds: float | None = None, dollars: str | Decimal | None = None) -> Scorer:
    """Limits a trial's time, its cost, or both.

    Args:
        seconds: The longest time allowed.
        dollars: The highest cost allowed, as a decimal text such as `"0.05"`.

    Returns:
        The scorer.

    Raises:
        BadInput: Neither is given, or one is not a valid amount.
    """
    if seconds is None and dollars is None:
        raise BadInput('within: give seconds=20, dollars="0.05", or both')
    try:
        cost = None if dollars is None else nano_usd(Decimal(dollars))
    except InvalidOperation as error:
        raise BadInput(f'within: dollars={dollars!r} is not an amount; write it as "0.05"') from error
    if (seconds is not None and not 0 <= seconds < math.inf) or (cost is not None and cost < 0):
        raise BadInput(f"within: seconds={seconds}, dollars={dollars}; a limit cannot be negative or infinite")
    return Within(None if seconds is None else round(seconds * 1e9), cost)


def end_state(check: Callable[..., ScorerOutput | Awaitable[ScorerOutput]], *, name: str | None = None) -> Scorer:
    """Checks the state that a trial leaves behind, independently of what the agent says about it.

    Args:
        check: Called as `check(deps, case)` after the run, plain or async; returns what any scorer may return. `deps`
            is what the eval spec's `deps` made for this trial alone.
        name: The scorer's name; when omitted, that of `check`.

    Returns:
        The scorer.
    """
    return EndState(check, name or scorer_name(check))


def at_least(threshold: float, scorer: Scorer | Evaluator) -> Scorer:
    """Makes the scores of `scorer` pass from `threshold` on.

    Args:
        threshold: From 0 to 1.
        scorer: Any scorer.

    Returns:
        The scorer with this threshold.

    Raises:
        BadInput: The threshold is outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise BadInput(f"at_least: {threshold} is outside 0 to 1, the range of scores")
    return Thresholded(scorer, threshold)


def graded(scorer: Scorer | Evaluator) -> Scorer:
    """Makes the scores of `scorer` count as grades: a trial's value is their mean instead of only 0 or 1.

    Args:
        scorer: Any scorer.

    Returns:
        The scorer without a threshold.
    """
    return Thresholded(scorer, None)
