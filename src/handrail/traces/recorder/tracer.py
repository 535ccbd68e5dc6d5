"""The tracer of Handrail's own spans, and how they nest with the spans of the program around them."""

import functools
import secrets
import time
from typing import Protocol

from opentelemetry.context import Context, create_key, get_current, get_value, set_value
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, Tracer, set_span_in_context

_OWN_SPAN = create_key("handrail-span")


class ContextPolicy(Protocol):
    """Decides whether Handrail's spans are OpenTelemetry's current span while they are open."""

    def parent_context(self) -> Context:
        """The context whose current span is the parent of Handrail's next one."""
        ...

    def context_within(self, span: Span) -> Context:
        """The context while `span`, one of Handrail's, is open."""
        ...


class IsolatedContext:
    """Hides Handrail's spans from the program: they are kept under a key of their own in the context.

    The first of them is a child of the program's current span, the others are children of each other. Spans that the
    program records during a run have the parents they would have without Handrail, so its backend has every parent.
    """

    def parent_context(self) -> Context:
        """A context whose current span is Handrail's innermost open span, else the program's context."""
        span = get_value(_OWN_SPAN)
        return set_span_in_context(span) if isinstance(span, Span) else get_current()

    def context_within(self, span: Span) -> Context:
        """The program's context with `span` under Handrail's key."""
        return set_value(_OWN_SPAN, span)


class SharedContext:
    """Makes Handrail's spans OpenTelemetry's current span: what the program records during a run is nested below them.

    Only for programs whose own spans go to the same backend as Handrail's; in any other backend, the program's spans
    would name parents that it does not have.
    """

    def parent_context(self) -> Context:
        """The current context."""
        return get_current()

    def context_within(self, span: Span) -> Context:
        """The current context with `span` as its current span."""
        return set_span_in_context(span)


@functools.cache
def own_tracer() -> Tracer:
    """A tracer of Handrail's own provider; the global provider belongs to the program that uses Handrail."""
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({"service.name": "handrail"}),
        id_generator=_TimeOrderedIds(),
        shutdown_on_exit=False,
    )
    return provider.get_tracer("handrail")


class _TimeOrderedIds(IdGenerator):
    """Trace ids start with 48 bits of milliseconds, so that the store's primary key is in the order of time."""

    def generate_trace_id(self) -> int:
        """Milliseconds since 1970 and 80 random bits."""
        return (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)

    def generate_span_id(self) -> int:
        """64 random bits, not all zero."""
        return secrets.randbits(64) or 1
