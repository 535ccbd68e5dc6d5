"""What a scorer is given of a trial, and what it may say.

A scorer is any callable of one `Seen` that gives, now or when awaited: True or False (it holds or not), a number from 0
to 1 (it holds from a half on), a text (a note that decides nothing), or a `Scored`. Evaluators of pydantic-evals are
taken by their shape.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from handrail.evals.eval_set.model import Case
from handrail.kernel.money import NanoUsd

HALF = 0.5
"""The score from which a trial counts as passed where its scorer names no threshold of its own."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One trial as its scorers see it.

    `outcome` is the run's, or what a plain callable returned; `observed` what the set's `observe` took of it; `deps`
    the trial's own world as it is afterwards (None where the set makes none); `duration_ns` and `cost` the trial's.
    """

    case: Case
    outcome: Any
    observed: Mapping[str, Any]
    deps: Any
    duration_ns: int
    cost: NanoUsd


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a scorer says of a trial. A score below `threshold` fails it; with None, scores count as grades."""

    fields: Mapping[str, bool] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = HALF


Said: TypeAlias = bool | float | str | Scored
Scorer: TypeAlias = Callable[[Seen], Said | Awaitable[Said]]
