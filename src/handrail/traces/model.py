"""Spans: as they are stored, and as they arrive before their attributes are read.

Names follow OpenTelemetry's GenAI conventions; `normalize.py` maps every other dialect to these fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from handrail.kernel.money import ZERO, NanoUsd

Kind = Literal["agent", "model", "tool", "step", "wait"]
"""What a span timed: a run of an agent, one request to a model, one tool call, a step that the code names itself, or
the time people took to decide."""


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
    """The cost that the sender reports, kept beside ours."""
    held: NanoUsd | None = None
    """The money held before a model request; None if nothing was held, so that no ceiling covers the spend."""
    conversation_id: str | None = None
    first_token_ns: int | None = None
    """From the start of the request to the first token of its response."""
    fingerprint: str | None = None
    """The hash of the whole agent."""
    attempt: int = 1
    retry_of: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] | None = None
    """What users, models and tools wrote: prompts, responses, arguments, results."""

    @property
    def duration_ns(self) -> int:
        """From start to end."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened during a span, at one point in time (nanoseconds since 1970)."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSpan:
    """A finished span before normalisation, its attributes as the sender named them.

    Ids are lower-case hex, times nanoseconds since 1970.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: Sequence[SpanEvent] = ()
    links: Sequence[Mapping[str, Any]] = ()
    failed: bool = False
    status_message: str = ""
    """The description in the span's status."""
