"""What an operator takes out of spans is nowhere: not in the store, not on its way out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Runtime, Settings, govern, use_runtime
from handrail.config.settings import ExportTo
from handrail.kernel.errors import BadSettings
from handrail.testing import VirtualClock
from handrail.traces import semconv
from handrail.traces.model import Span
from handrail.traces.recorder.recorder import Recorder, Telemetry
from handrail.traces.recorder.redaction import load_redact, redacting, unchanged
from handrail.traces.store.spans import load_payload, load_trace
from tests.traces.collectors import answering
from tests.traces.samples import span as sample

MODULE = """
import re

def redact(found):
    return {name: hide(value) for name, value in found.items()}

def hide(value):
    if isinstance(value, str):
        return re.sub(r"[\\w.]+@[\\w.]+", "(mail)", value)
    if isinstance(value, dict):
        return redact(value)
    return [hide(each) for each in value] if isinstance(value, list) else value

broken = 7
"""


def fails(_found: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ValueError("ann@example.com")


async def test_nothing_of_it_is_stored_or_sent(tmp_path: Path) -> None:
    """With `redact` set, a run's spans are redacted in the store and at the collector."""
    (tmp_path / "privacy_of_a_test.py").write_text(MODULE)
    with answering(200) as collector:
        to = ExportTo(endpoint=collector.address, content=True)
        runtime = Runtime(Settings(base=tmp_path, redact="privacy_of_a_test:redact", export=to))
        with use_runtime(runtime):
            agent = govern(Agent(TestModel(custom_output_text="I wrote to ann@example.com")), name="support")
            outcome = await agent.run("I am ann@example.com", user="u-1")
        assert isinstance(outcome, Answered)
        assert "ann@example.com" in outcome.output
        trace_id = outcome.facts.trace_id
        _, spans = runtime.database.read_now(lambda conn: load_trace(conn, trace_id, None))
        said = [payload_of(runtime, span) for span in spans]
        runtime.close()
    assert "I wrote to (mail)" in str(said)
    assert "ann@example.com" not in str([spans, said])
    assert b"(mail)" in b"".join(collector.bodies)
    assert b"ann@example.com" not in b"".join(collector.bodies)


def payload_of(runtime: Runtime, span: Span) -> Mapping[str, Any] | None:
    return runtime.database.read_now(lambda conn: load_payload(conn, span.trace_id, span.span_id))


def test_what_a_redaction_gets() -> None:
    """It is called with the payload and with the attributes, both as plain values."""
    calls: list[Mapping[str, Any]] = []

    def redact(found: Mapping[str, Any]) -> Mapping[str, Any]:
        calls.append(found)
        return {}

    span = redacting(redact)(sample(attributes={"a": (1, 2)}, payload={"said": VirtualClock().now(), "blob": b"x"}))
    assert calls == [{"said": "2026-01-01T00:00:00Z", "blob": "eA=="}, {"a": [1, 2]}]
    assert (span.attributes, span.payload) == ({}, {})
    redacting(redact)(sample())
    assert calls[2:] == [{}]


@pytest.mark.parametrize("redact", [fails, lambda _found: None, lambda found: found["missing"]])
def test_a_redaction_that_fails(redact: Any) -> None:
    """Where it fails or returns no mapping, neither payload nor attributes are kept, and the span says so."""
    span = redacting(redact)(sample(attributes={"mail": "ann@example.com"}, payload={"said": "hi"}, cost=7))
    assert span.payload is None
    assert set(span.attributes) == {semconv.REDACTION}
    assert span.attributes[semconv.REDACTION].startswith("failed: ")
    assert "ann" not in str(span)
    assert span.cost == 7


def test_a_run_goes_on_where_it_fails() -> None:
    """A redaction that fails does not fail what is recorded."""
    recorder = Recorder(VirtualClock(), {}, Telemetry(redact=redacting(fails)))
    with recorder.span("root", {"mail": "ann@example.com"}) as live:
        live.payload["said"] = "hi"
    [span] = recorder.take()
    assert (span.attributes, span.payload) == ({semconv.REDACTION: "failed: ValueError"}, None)


def test_where_it_is_found(tmp_path: Path) -> None:
    """It is looked for beside handrail.toml; what is not there, or is no function, is a wrong setting."""
    (tmp_path / "more_privacy_of_a_test.py").write_text(MODULE)
    assert load_redact(None, tmp_path) is unchanged
    found = load_redact("more_privacy_of_a_test:redact", tmp_path)
    assert found(sample(attributes={"a": "x@y.z"})).attributes == {"a": "(mail)"}
    for target, said in (
        ("no_such_module:redact", "no module 'no_such_module'"),
        ("more_privacy_of_a_test:missing", "no function"),
        ("more_privacy_of_a_test:broken", "no function"),
    ):
        with pytest.raises(BadSettings, match=said):
            load_redact(target, tmp_path)
