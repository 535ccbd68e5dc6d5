"""Records what one run does as OpenTelemetry spans, and collects the finished ones to be stored.

`TelemetryPipeline` decides what else happens to them: redaction, export, and nesting with the program's own spans.
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
from handrail.traces.normalize import normalize_sdk_span

from .redaction import Redact, load_redaction, no_redaction

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from handrail.traces.export.exporter import SpanExporter

    from .tracer import ContextPolicy


_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True)
class TelemetryPipeline:
    """What happens to every span that Handrail records, besides being stored."""

    redact: Redact = no_redaction
    exporter: "SpanExporter | None" = None
    context_policy: "ContextPolicy | None" = None
    """How Handrail's spans and the program's own are nested; isolated from each other if None."""

    def close(self) -> None:
        """Sends the spans still waiting to be exported, for a few seconds at most."""
        if self.exporter is not None:
            self.exporter.close()


def open_pipeline(settings: Settings, env: Mapping[str, str]) -> TelemetryPipeline:
    """The pipeline that the settings describe.

    Args:
        settings: Their redaction, export and context policy.
        env: The environment, which holds the values of the export's headers.

    Raises:
        BadSettings: The redaction cannot be loaded, or a header's variable is not set.
        MissingExtra: The packages for an export are not installed.
    """
    from handrail.traces.export.exporter import open_exporter

    from .tracer import IsolatedContext, SharedContext

    return TelemetryPipeline(
        redact=load_redaction(settings.redact, settings.base),
        exporter=open_exporter(settings.export, env) if settings.export else None,
        context_policy=SharedContext() if settings.otel_context == "shared" else IsolatedContext(),
    )


class LiveSpan:
    """A span that has started. Attributes may be set until it ends; its content goes into `payload`.

    Args:
        span: OpenTelemetry's span.
        start_ns: When it started, in nanoseconds since 1970.
    """

    def __init__(self, span: OtelSpan, start_ns: int) -> None:
        self._span = span
        self.start_ns = start_ns
        self.payload: dict[str, Any] = {}

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def span_id(self) -> str:
        """16 lower-case hex digits."""
        return f"{self._span.get_span_context().span_id:016x}"

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes to the span.

        Args:
            attributes: The attributes by name; those that are None are left out.
        """
        self._span.set_attributes(_present(attributes))

    def fail(self, error_type: str) -> None:
        """Marks the span as failed.

        Args:
            error_type: A name of the error; one of few, so that spans can be grouped by it.
        """
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute(semconv.ERROR, error_type)


class Recorder:
    """Records the spans of one run."""

    def __init__(self, clock: Clock, common: Mapping[str, Any], telemetry: TelemetryPipeline | None = None) -> None:
        """
        Args:
            clock: The clock for start and end times.
            common: Attributes of every span: tenant, user, agent, run.
            telemetry: What happens to the spans besides being stored; by default nothing.
        """
        from .tracer import (  # importing the SDK takes 30 ms, which a program that never runs an agent is spared
            IsolatedContext,
            own_tracer,
        )

        self._clock = clock
        self._telemetry = telemetry or TelemetryPipeline()
        self._context_policy = self._telemetry.context_policy or IsolatedContext()
        self._tracer = own_tracer()
        self._common = _present(common)
        self._finished: list[Span] = []
        # Durations come from the monotonic clock: the wall clock may be set during a run.
        self._offset_ns = unix_ns(clock.now()) - clock.monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since 1970, never going back within a run."""
        return self._offset_ns + self._clock.monotonic_ns()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[LiveSpan]:
        """Records the block as a child of the current span; an exception marks it as failed and propagates."""
        start_ns = self.now_ns()
        otel = self._start(name, attributes, start_ns)
        live = LiveSpan(otel, start_ns)
        previous, context = otel_context.get_current(), self._context_policy.context_within(otel)
        otel_context.attach(context)
        try:
            yield live
        except BaseException as error:
            live.fail(type(error).__qualname__)
            raise
        finally:
            # Not detached with the token of `attach`: a stream may be closed from another context, where it is invalid.
            if otel_context.get_current() is context:
                otel_context.attach(previous)
            self._end(otel, self.now_ns(), live.payload)

    @contextmanager
    def child_of(self, trace_id: str, span_id: str) -> Iterator[None]:
        """Makes new spans children of a span that has ended, perhaps in another process (both ids in hex)."""
        parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)
        token = otel_context.attach(self._context_policy.context_within(NonRecordingSpan(parent)))
        try:
            yield
        finally:
            otel_context.detach(token)

    def add_finished(self, name: str, attributes: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
        """Adds a span that has ended already, such as the time that people took to decide.

        Args:
            name: The span's name.
            attributes: Its attributes by name; those that are None are left out.
            start_ns: Its start, in nanoseconds since 1970.
            end_ns: Its end; if it is before the start, the span has no duration.
        """
        self._end(self._start(name, attributes, start_ns), max(start_ns, end_ns), {})

    def drain(self) -> list[Span]:
        """The spans that have ended since the last call, in the order in which they ended."""
        finished, self._finished = self._finished, []
        return finished

    def _start(self, name: str, attributes: Mapping[str, Any], start_ns: int) -> OtelSpan:
        all_attributes = {**self._common, **_present(attributes)}
        return self._tracer.start_span(
            name, self._context_policy.parent_context(), attributes=all_attributes, start_time=start_ns
        )

    def _end(self, otel: OtelSpan, end_ns: int, payload: Mapping[str, Any]) -> None:
        otel.end(end_time=end_ns)
        span = self._telemetry.redact(normalize_sdk_span(cast("ReadableSpan", otel), payload))
        self._finished.append(span)
        if self._telemetry.exporter is not None:
            self._telemetry.exporter.add(span)


def _present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
