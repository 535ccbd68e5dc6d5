"""Recording spans and normalising them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Status, StatusCode

from handrail.kernel.clock import unix_ns
from handrail.testing import VirtualClock
from handrail.traces import semconv
from handrail.traces.model import Span, Usage
from handrail.traces.normalize import normalize_sdk_span
from handrail.traces.recorder.recorder import Recorder

COMMON = {semconv.TENANT: "acme", semconv.USER: "u-1", semconv.AGENT: "a", semconv.RUN: "run_1"}


class JumpingClock(VirtualClock):
    """A clock whose wall time can be set back, as an administrator or NTP does."""

    def set_back(self, to: datetime) -> None:
        self._now = to


def recorder(clock: VirtualClock | None = None) -> Recorder:
    return Recorder(clock or VirtualClock(), COMMON)


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def finished_span(attributes: dict[str, Any], *, failed: bool = False) -> ReadableSpan:
    """A finished OpenTelemetry span of another program."""
    span = (
        TracerProvider(shutdown_on_exit=False)
        .get_tracer("other")
        .start_span("work", attributes=attributes, start_time=10)
    )
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=30)
    assert isinstance(span, ReadableSpan)
    return span


def test_parents() -> None:
    """A span inside another is its child, one after another its sibling, and all below a root share its trace."""
    recording = recorder()
    with recording.span("root", {}):
        with recording.span("first", {}), recording.span("inner", {}):
            pass
        with recording.span("second", {}):
            pass
    with recording.span("other root", {}):
        pass
    spans = by_name(recording.drain())
    assert spans["root"].parent_id is None
    assert spans["first"].parent_id == spans["second"].parent_id == spans["root"].span_id
    assert spans["inner"].parent_id == spans["first"].span_id
    assert spans["inner"].trace_id == spans["root"].trace_id != spans["other root"].trace_id


def test_common_attributes() -> None:
    """Every span of a run has its tenant, user, agent and run."""
    recording = recorder()
    with recording.span("root", {}), recording.span("inner", {}):
        pass
    assert {(s.tenant, s.user, s.agent, s.run_id) for s in recording.drain()} == {("acme", "u-1", "a", "run_1")}


def test_an_exception() -> None:
    """An exception ends the spans that it leaves with its type as the error, and propagates."""
    recording = recorder()
    with pytest.raises(ZeroDivisionError), recording.span("root", {}), recording.span("inner", {}):
        raise ZeroDivisionError
    spans = recording.drain()
    assert [(span.name, span.error_type) for span in spans] == [
        ("inner", "ZeroDivisionError"),
        ("root", "ZeroDivisionError"),
    ]
    with recording.span("next", {}):
        pass
    assert recording.drain()[0].parent_id is None


def test_a_named_error() -> None:
    """A span can be marked with a named error."""
    recording = recorder()
    with recording.span("root", {}) as live:
        live.fail("model_timeout")
    assert recording.drain()[0].error_type == "model_timeout"


def test_payloads_are_not_attributes() -> None:
    """Content is not among the attributes; a span without content has no payload."""
    recording = recorder()
    with recording.span("root", {"a": 1}) as live:
        live.set({"b": "two", "left out": None})
        live.payload["input"] = "hello"
    with recording.span("silent", {}):
        pass
    root, silent = recording.drain()
    assert root.attributes == {"a": 1, "b": "two"}
    assert (root.payload, silent.payload) == ({"input": "hello"}, None)


def test_drained_once() -> None:
    """Spans that were drained are not returned again, and those that have not ended are not returned yet."""
    recording = recorder()
    with recording.span("root", {}):
        with recording.span("inner", {}):
            pass
        assert [span.name for span in recording.drain()] == ["inner"]
        assert recording.drain() == []
    assert [span.name for span in recording.drain()] == ["root"]


@given(
    st.lists(
        st.one_of(st.floats(0, 1_000), st.datetimes(timezones=st.just(UTC))),
        max_size=6,
    )
)
def test_durations_are_monotonic(steps: list[float | datetime]) -> None:
    """The duration of a span is the time that passed, even if the wall clock is changed meanwhile."""
    clock = JumpingClock()
    started = clock.now()
    recording = recorder(clock)
    with recording.span("root", {}):
        for step in steps:
            if isinstance(step, datetime):
                clock.set_back(step)
            else:
                clock.advance(step)
    [span] = recording.drain()
    passed = sum(round(step * 1e9) for step in steps if isinstance(step, float))
    assert abs(span.duration_ns - passed) < 1_000
    assert abs(span.start_ns - unix_ns(started)) < 1_000


def test_trace_ids_are_in_order() -> None:
    """A trace id starts with its time in milliseconds, so that trace ids sort by time."""
    recording = recorder()
    with recording.span("root", {}):
        pass
    [span] = recording.drain()
    started_ms = int(span.trace_id[:12], 16)
    assert datetime.fromtimestamp(started_ms / 1000, UTC).year >= 2025
    assert len(span.trace_id) == 32
    assert len(span.span_id) == 16


def test_reading_a_model_request() -> None:
    """The GenAI conventions' names become columns; other attributes are kept."""
    span = normalize_sdk_span(
        finished_span(
            {
                semconv.OPERATION: "chat",
                semconv.PROVIDER: "anthropic",
                semconv.REQUEST_MODEL: "claude",
                semconv.RESPONSE_MODEL: "claude-5",
                semconv.INPUT_TOKENS: 100,
                semconv.OUTPUT_TOKENS: 20,
                semconv.CACHE_READ: 60,
                semconv.CACHE_WRITE: 10,
                semconv.COST: 7,
                semconv.ATTEMPT: 2,
                semconv.RETRY_OF: "abc",
                **COMMON,
                "http.route": "/v1",
            }
        ),
        {"input": "hello"},
    )
    assert (span.kind, span.name, span.provider, span.model) == ("model", "work", "anthropic", "claude-5")
    assert span.usage == Usage(input=100, output=20, cache_read=60, cache_write=10)
    assert (span.cost, span.attempt, span.retry_of) == (7, 2, "abc")
    assert (span.start_ns, span.end_ns, span.duration_ns) == (10, 30, 20)
    assert span.attributes == {semconv.REQUEST_MODEL: "claude", "http.route": "/v1"}
    assert span.payload == {"input": "hello"}
    assert span.error_type is None


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("invoke_agent", "agent"), ("chat", "model"), ("execute_tool", "tool"), ("retrieve", "step"), (None, "step")],
)
def test_kinds(operation: str | None, kind: str) -> None:
    """A span's operation gives its kind; any other operation is a step."""
    assert (
        normalize_sdk_span(finished_span({} if operation is None else {semconv.OPERATION: operation}), None).kind
        == kind
    )


def test_reading_a_bare_span() -> None:
    """A span without known attributes is a step without user, tenant and usage."""
    span = normalize_sdk_span(finished_span({}), None)
    assert (span.tenant, span.user, span.agent, span.run_id) == ("", "", "", "")
    assert (span.usage, span.cost, span.attempt, span.model, span.parent_id) == (Usage(), 0, 1, None, None)


def test_errors_are_read() -> None:
    """An error has the type in the span's attributes, or `error` if there is only a status."""
    assert normalize_sdk_span(finished_span({semconv.ERROR: "timeout"}, failed=True), None).error_type == "timeout"
    assert normalize_sdk_span(finished_span({}, failed=True), None).error_type == "error"
