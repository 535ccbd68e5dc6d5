"""Spans as they are recorded, and as they are read into their stored form."""

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
from handrail.traces.normalize import read_span
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


def ended(attributes: dict[str, Any], *, failed: bool = False) -> ReadableSpan:
    """A span of another program's OpenTelemetry, finished."""
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
    """A span inside another is its child, beside another its sibling; all of a root share its trace."""
    recording = recorder()
    with recording.span("root", {}):
        with recording.span("first", {}), recording.span("inner", {}):
            pass
        with recording.span("second", {}):
            pass
    with recording.span("other root", {}):
        pass
    found = by_name(recording.take())
    assert found["root"].parent_id is None
    assert found["first"].parent_id == found["second"].parent_id == found["root"].span_id
    assert found["inner"].parent_id == found["first"].span_id
    assert found["inner"].trace_id == found["root"].trace_id != found["other root"].trace_id


def test_what_is_stamped() -> None:
    """Every span of a run carries its tenant, user, agent and run."""
    recording = recorder()
    with recording.span("root", {}), recording.span("inner", {}):
        pass
    assert {(s.tenant, s.user, s.agent, s.run_id) for s in recording.take()} == {("acme", "u-1", "a", "run_1")}


def test_an_exception() -> None:
    """An exception marks the spans it leaves with its type, ends them, and goes on."""
    recording = recorder()
    with pytest.raises(ZeroDivisionError), recording.span("root", {}), recording.span("inner", {}):
        raise ZeroDivisionError
    found = recording.take()
    assert [(span.name, span.error_type) for span in found] == [
        ("inner", "ZeroDivisionError"),
        ("root", "ZeroDivisionError"),
    ]
    with recording.span("next", {}):
        pass
    assert recording.take()[0].parent_id is None


def test_a_named_fault() -> None:
    """A span that is marked with a fault keeps its name."""
    recording = recorder()
    with recording.span("root", {}) as live:
        live.fail("model_timeout")
    assert recording.take()[0].error_type == "model_timeout"


def test_payload_is_apart() -> None:
    """What was said is no attribute; a span that said nothing has no payload."""
    recording = recorder()
    with recording.span("root", {"a": 1}) as live:
        live.set({"b": "two", "left out": None})
        live.payload["input"] = "hello"
    with recording.span("silent", {}):
        pass
    root, silent = recording.take()
    assert root.attributes == {"a": 1, "b": "two"}
    assert (root.payload, silent.payload) == ({"input": "hello"}, None)


def test_taken_once() -> None:
    """What was taken is not there again; what has not ended is not there yet."""
    recording = recorder()
    with recording.span("root", {}):
        with recording.span("inner", {}):
            pass
        assert [span.name for span in recording.take()] == ["inner"]
        assert recording.take() == []
    assert [span.name for span in recording.take()] == ["root"]


@given(
    st.lists(
        st.one_of(st.floats(0, 1_000), st.datetimes(timezones=st.just(UTC))),
        max_size=6,
    )
)
def test_durations_are_monotonic(steps: list[float | datetime]) -> None:
    """A span lasts as long as time went on in it, wherever the wall clock was set meanwhile."""
    clock = JumpingClock()
    began = clock.now()
    recording = recorder(clock)
    with recording.span("root", {}):
        for step in steps:
            if isinstance(step, datetime):
                clock.set_back(step)
            else:
                clock.advance(step)
    [span] = recording.take()
    passed = sum(round(step * 1e9) for step in steps if isinstance(step, float))
    assert abs(span.duration_ns - passed) < 1_000
    assert abs(span.start_ns - unix_ns(began)) < 1_000


def test_trace_ids_are_in_order() -> None:
    """Trace ids of different milliseconds sort by time: they begin with it."""
    recording = recorder()
    with recording.span("root", {}):
        pass
    [span] = recording.take()
    began_ms = int(span.trace_id[:12], 16)
    assert datetime.fromtimestamp(began_ms / 1000, UTC).year >= 2025
    assert len(span.trace_id) == 32
    assert len(span.span_id) == 16


def test_reading_a_model_request() -> None:
    """The GenAI conventions' names become columns; what a column does not say is kept."""
    span = read_span(
        ended(
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
        {"said": "hello"},
    )
    assert (span.kind, span.name, span.provider, span.model) == ("model", "work", "anthropic", "claude-5")
    assert span.usage == Usage(input=100, output=20, cache_read=60, cache_write=10)
    assert (span.cost, span.attempt, span.retry_of) == (7, 2, "abc")
    assert (span.start_ns, span.end_ns, span.duration_ns) == (10, 30, 20)
    assert span.attributes == {semconv.REQUEST_MODEL: "claude", "http.route": "/v1"}
    assert span.payload == {"said": "hello"}
    assert span.error_type is None


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("invoke_agent", "agent"), ("chat", "model"), ("execute_tool", "tool"), ("retrieve", "step"), (None, "step")],
)
def test_kinds(operation: str | None, kind: str) -> None:
    """A span's operation says its kind; what is neither agent, model nor tool is a step."""
    assert read_span(ended({} if operation is None else {semconv.OPERATION: operation}), None).kind == kind


def test_reading_a_bare_span() -> None:
    """A span without any of the names is a step of nobody that used nothing."""
    span = read_span(ended({}), None)
    assert (span.tenant, span.user, span.agent, span.run_id) == ("", "", "", "")
    assert (span.usage, span.cost, span.attempt, span.model, span.parent_id) == (Usage(), 0, 1, None, None)


def test_errors_are_read() -> None:
    """An error has the type its program gave, or just `error` where only the status says so."""
    assert read_span(ended({semconv.ERROR: "timeout"}, failed=True), None).error_type == "timeout"
    assert read_span(ended({}, failed=True), None).error_type == "error"
