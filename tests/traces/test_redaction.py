"""Redacted values are neither stored nor exported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Runtime, Settings, govern, use_runtime
from handrail.config.settings import ExportSettings
from handrail.kernel.errors import BadSettings
from handrail.testing import VirtualClock
from handrail.traces import semconv
from handrail.traces.model import Span
from handrail.traces.recorder.recorder import Recorder, TelemetryPipeline
from handrail.traces.recorder.redaction import build_redaction, load_redaction, no_redaction
from handrail.traces.store.spans import load_payload, load_trace
from tests.traces.collectors import responding_collector
from tests.traces.samples import span as sample

MODULE = """
import re

def redact(values):
    return {name: hide(value) for name, value in values.items()}

def hide(value):
    if isinstance(value, str):
        return re.sub(r"[\\w.]+@[\\w.]+", "(mail)", value)
    if isinstance(value, dict):
        return redact(value)
    return [hide(item) for item in value] if isinstance(value, list) else value

broken = 7
"""


def fails(_values: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ValueError("ann@example.com")


async def test_a_run_is_redacted(tmp_path: Path) -> None:
    """With `redact` set, a run's spans are redacted in the store and at the collector."""
    (tmp_path / "redaction_of_a_test.py").write_text(MODULE)
    with responding_collector(200) as collector:
        to = ExportSettings(endpoint=collector.address, content=True)
        runtime = Runtime(Settings(base=tmp_path, redact="redaction_of_a_test:redact", export=to))
        with use_runtime(runtime):
            agent = govern(Agent(TestModel(custom_output_text="I wrote to ann@example.com")), name="support")
            outcome = await agent.run("I am ann@example.com", user="u-1")
        assert isinstance(outcome, Answered)
        assert "ann@example.com" in outcome.output
        trace_id = outcome.facts.trace_id
        _, spans = runtime.database.read_now(load_trace(trace_id, None))
        payloads = [payload_of(runtime, span) for span in spans]
        runtime.close()
    assert "I wrote to (mail)" in str(payloads)
    assert "ann@example.com" not in str([spans, payloads])
    assert b"(mail)" in b"".join(collector.bodies)
    assert b"ann@example.com" not in b"".join(collector.bodies)


def payload_of(runtime: Runtime, span: Span) -> Mapping[str, Any] | None:
    return runtime.database.read_now(load_payload(span.trace_id, span.span_id))


def test_arguments_of_a_redaction() -> None:
    """A redaction is called with the payload and with the attributes, both as plain values."""
    calls: list[Mapping[str, Any]] = []

    def redact(values: Mapping[str, Any]) -> Mapping[str, Any]:
        calls.append(values)
        return {}

    span = build_redaction(redact)(
        sample(attributes={"a": (1, 2)}, payload={"input": VirtualClock().now(), "blob": b"x"})
    )
    assert calls == [{"input": "2026-01-01T00:00:00Z", "blob": "eA=="}, {"a": [1, 2]}]
    assert (span.attributes, span.payload) == ({}, {})
    build_redaction(redact)(sample())
    assert calls[2:] == [{}]


@pytest.mark.parametrize("redact", [fails, lambda _values: None, lambda values: values["missing"]])
def test_a_redaction_that_fails(redact: Any) -> None:
    """If a redaction fails or returns no mapping, the span loses payload and attributes and has a note."""
    span = build_redaction(redact)(sample(attributes={"mail": "ann@example.com"}, payload={"input": "hi"}, cost=7))
    assert span.payload is None
    assert set(span.attributes) == {semconv.REDACTION}
    assert span.attributes[semconv.REDACTION].startswith("failed: ")
    assert "ann" not in str(span)
    assert span.cost == 7


def test_a_run_survives_a_failing_redaction() -> None:
    """A redaction that fails does not fail the run."""
    recorder = Recorder(VirtualClock(), {}, TelemetryPipeline(redact=build_redaction(fails)))
    with recorder.span("root", {"mail": "ann@example.com"}) as live:
        live.payload["input"] = "hi"
    [span] = recorder.drain()
    assert (span.attributes, span.payload) == ({semconv.REDACTION: "failed: ValueError"}, None)


def test_loading_a_redaction(tmp_path: Path) -> None:
    """A redaction is loaded from the folder of handrail.toml; a missing one, or a value, is an invalid setting."""
    (tmp_path / "more_redaction_of_a_test.py").write_text(MODULE)
    assert load_redaction(None, tmp_path) is no_redaction
    redact = load_redaction("more_redaction_of_a_test:redact", tmp_path)
    assert redact(sample(attributes={"a": "x@y.z"})).attributes == {"a": "(mail)"}
    for target, message in (
        ("no_such_module:redact", "no module 'no_such_module'"),
        ("more_redaction_of_a_test:missing", "not a function"),
        ("more_redaction_of_a_test:broken", "not a function"),
    ):
        with pytest.raises(BadSettings, match=message):
            load_redaction(target, tmp_path)
