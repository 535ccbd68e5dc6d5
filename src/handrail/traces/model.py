"""A span as it is stored: narrow and typed, what was said kept apart.

Names follow OpenTelemetry's GenAI conventions; `reading.py` maps a program's own names to these fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from handrail.kernel.money import ZERO, NanoUsd

Kind = Literal["agent", "model", "tool", "step", "wait"]
"""What a span timed: a run of an agent, one request to a model, one call of a tool, a step the code names itself, or
people's time to decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model request. `input` includes what was read from and written to the provider's cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One finished, timed piece of work. Times are nanoseconds since 1970; the parent is None for the root."""

    trace_id: str
    span_id: str
    parent_id: str | None
    kind: Kind
    name: str
    start_ns: int
    end_ns: int
    tenant: str
    user: str
    agent: str
    run_id: str
    error_type: str | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost: NanoUsd = ZERO
    reported_cost: NanoUsd | None = None
    """What the sender says it cost, kept beside ours."""
    held: NanoUsd | None = None
    """What was held for a model request; None where nobody held anything: spend outside every ceiling."""
    conversation_id: str | None = None
    first_token_ns: int | None = None
    """From the request to the first of its answer."""
    fingerprint: str | None = None
    """The hash of the whole agent."""
    attempt: int = 1
    retry_of: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] | None = None

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns
