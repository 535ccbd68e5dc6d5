"""The tracer of Handrail's own spans."""

import functools
import secrets
import time

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer


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
