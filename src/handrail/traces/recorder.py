"""Times what one run does, as OpenTelemetry spans, and hands the finished ones over to be stored.

The spans are the context's current ones while they last, so what tools and libraries trace inside hangs below them.
"""

import functools
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Status, StatusCode, Tracer, set_span_in_context

from handrail.kernel import Clock, unix_ns

from . import reading
from .span import Span


class LiveSpan:
    """A span that has begun. Attributes may be set until it ends; `payload` is what was said, kept apart."""

    def __init__(self, span: OtelSpan, start_ns: int) -> None:
        self._span = span
        self.start_ns = start_ns
        self.payload: dict[str, Any] = {}

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self._span.get_span_context().span_id:016x}"

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes; those that are None are left out."""
        self._span.set_attributes(_present(attributes))

    def fail(self, error_type: str) -> None:
        """Marks the span as failed, with a low-cardinality name of the fault."""
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute(reading.ERROR, error_type)


class Recorder:
    """The spans of one run. `common` attributes (tenant, user, agent, run) are stamped on every one of them."""

    def __init__(self, clock: Clock, common: Mapping[str, Any]) -> None:
        self._clock = clock
        self._common = _present(common)
        self._finished: list[Span] = []
        # Durations come from the monotonic clock: the wall clock may be set while a run is under way.
        self._offset_ns = unix_ns(clock.now()) - clock.monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since 1970, never going back within a run."""
        return self._offset_ns + self._clock.monotonic_ns()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[LiveSpan]:
        """A span around the block, child of the context's current one; an exception marks it failed and passes on."""
        start_ns = self.now_ns()
        otel = _tracer().start_span(name, attributes={**self._common, **_present(attributes)}, start_time=start_ns)
        live = LiveSpan(otel, start_ns)
        inside = set_span_in_context(otel)
        token = otel_context.attach(inside)
        try:
            yield live
        except BaseException as error:
            live.fail(type(error).__qualname__)
            raise
        finally:
            # A stream that its reader abandons is closed from another context, where there is nothing to undo.
            if otel_context.get_current() is inside:
                otel_context.detach(token)
            otel.end(end_time=self.now_ns())
            self._finished.append(reading.read_span(cast(ReadableSpan, otel), live.payload or None))

    def take(self) -> list[Span]:
        """The spans that have ended since the last call, in the order of their ends."""
        finished, self._finished = self._finished, []
        return finished


def _present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


@functools.cache
def _tracer() -> Tracer:
    # A provider of our own: the process's global one belongs to the program that Handrail lives in.
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
