"""Times what one run does, as OpenTelemetry spans, and hands the finished ones over to be stored.

What becomes of them besides (taken out, sent on, where they stand among the program's own) is `Telemetry`'s to say.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import context as otel_context
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as OtelSpan

from handrail.config.settings import Settings
from handrail.kernel.clock import Clock, unix_ns
from handrail.traces import semconv
from handrail.traces.model import Span
from handrail.traces.normalize import read_span

from .redaction import Redact, load_redact, unchanged

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from handrail.traces.export.exporter import Export

    from .tracer import Surroundings


_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True)
class Telemetry:
    """What is done with every span of our own runs before and beside storing it."""

    redact: Redact = unchanged
    export: "Export | None" = None
    place: "Surroundings | None" = None
    """Apart from the program's own spans, where none is given."""

    def close(self) -> None:
        """Sends what is still on its way out, for a few seconds at most."""
        if self.export is not None:
            self.export.close()


def open_telemetry(settings: Settings, env: Mapping[str, str]) -> Telemetry:
    """As `settings` say; raises BadSettings, and MissingExtra for an export without its packages."""
    from handrail.traces.export.exporter import open_export

    from .tracer import Apart, Shared

    return Telemetry(
        redact=load_redact(settings.redact, settings.base),
        export=open_export(settings.export, env) if settings.export else None,
        place=Shared() if settings.otel_context == "shared" else Apart(),
    )


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
        self._span.set_attribute(semconv.ERROR, error_type)


class Recorder:
    """The spans of one run. `common` attributes (tenant, user, agent, run) are stamped on every one of them."""

    def __init__(self, clock: Clock, common: Mapping[str, Any], telemetry: Telemetry | None = None) -> None:
        from .tracer import Apart, tracer  # the SDK takes 30 ms, which a program that only imports need not pay

        self._clock = clock
        self._telemetry = telemetry or Telemetry()
        self._place = self._telemetry.place or Apart()
        self._tracer = tracer()
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
        otel = self._start(name, attributes, start_ns)
        live = LiveSpan(otel, start_ns)
        inside = self._place.inside(otel)
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
            self._end(otel, self.now_ns(), live.payload)

    @contextmanager
    def under(self, trace_id: str, span_id: str) -> Iterator[None]:
        """In the block, new spans hang below a span that ended before, in another process perhaps (both ids in hex)."""
        parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)
        token = otel_context.attach(self._place.inside(NonRecordingSpan(parent)))
        try:
            yield
        finally:
            otel_context.detach(token)

    def past(self, name: str, attributes: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
        """A span that began and ended before now (nanoseconds since 1970), such as people's time to decide."""
        self._end(self._start(name, attributes, start_ns), max(start_ns, end_ns), {})

    def take(self) -> list[Span]:
        """The spans that have ended since the last call, in the order of their ends."""
        finished, self._finished = self._finished, []
        return finished

    def _start(self, name: str, attributes: Mapping[str, Any], start_ns: int) -> OtelSpan:
        stamped = {**self._common, **_present(attributes)}
        return self._tracer.start_span(name, self._place.parent(), attributes=stamped, start_time=start_ns)

    def _end(self, otel: OtelSpan, end_ns: int, payload: Mapping[str, Any]) -> None:
        otel.end(end_time=end_ns)
        span = self._telemetry.redact(read_span(cast("ReadableSpan", otel), payload))
        self._finished.append(span)
        if self._telemetry.export is not None:
            self._telemetry.export.add(span)


def _present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
