"""The tracer of Handrail's own spans, and where they stand beside those of the program around them."""

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

_OWN = create_key("handrail-span")


class Surroundings(Protocol):
    """Where in OpenTelemetry's context our spans stand."""

    def parent(self) -> Context:
        """The context whose current span is the parent of our next one."""
        ...

    def inside(self, span: Span) -> Context:
        """The context while `span`, one of ours, is under way."""
        ...


class Apart:
    """Our spans are children of each other, the first one of the program's current span; the program sees none of them.

    What the program traces in a run has the parent that it would have without us: its backend misses nothing.
    """

    def parent(self) -> Context:
        span = get_value(_OWN)
        return set_span_in_context(span) if isinstance(span, Span) else get_current()

    def inside(self, span: Span) -> Context:
        return set_value(_OWN, span)


class Shared:
    """Our spans are OpenTelemetry's current ones: what the program traces in a run hangs below them.

    For where both kinds go to one place; in any other, the program's spans would name parents that are not there.
    """

    def parent(self) -> Context:
        return get_current()

    def inside(self, span: Span) -> Context:
        return set_span_in_context(span)


@functools.cache
def tracer() -> Tracer:
    """From a provider of our own: the process's global one belongs to the program that Handrail lives in."""
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({"service.name": "handrail"}),
        id_generator=_TimeOrdered(),
        shutdown_on_exit=False,
    )
    return provider.get_tracer("handrail")


class _TimeOrdered(IdGenerator):
    """Trace ids begin with 48 bits of milliseconds, so that traces lie in the store in the order they began."""

    def generate_trace_id(self) -> int:
        return (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1
