"""Export of spans: with any collector, runs neither fail nor wait, and losses are counted."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Runtime, Settings, govern, use_runtime
from handrail.config.settings import ExportSettings
from handrail.config.sources import load_settings
from handrail.kernel.errors import BadSettings
from handrail.testing import VirtualClock
from handrail.traces.export.exporter import (
    LOG_INTERVAL_NS,
    MAX_BATCH_SPANS,
    MAX_QUEUED_SPANS,
    CollectorClient,
    SpanExporter,
    open_exporter,
    without_content,
)
from handrail.traces.model import Span
from handrail.traces.otlp.ingest import OtlpBatch, decode_request
from handrail.traces.store.spans import load_trace
from tests.traces.collectors import RespondingCollector, hanging_collector, responding_collector, unused_address
from tests.traces.samples import span as sample

HEX = {"trace_id": "1" * 32, "user": "u-1"}


def span(number: int = 1) -> Span:
    return sample(f"{number:016x}", **HEX, start_ns=1, end_ns=2)


@contextmanager
def open_span_exporter(address: str, retry_seconds: Sequence[float] = (), **options: Any) -> Iterator[SpanExporter]:
    """An exporter to that address, closed at the end of the block."""
    export = SpanExporter(CollectorClient(address, {}), without_content, retry_seconds=retry_seconds, **options)
    try:
        yield export
    finally:
        export.close()


def add_a_batch(export: SpanExporter) -> None:
    """Adds as many spans as one batch has, so that it does not wait for more."""
    for number in range(1, MAX_BATCH_SPANS + 1):
        export.add(span(number))


def received_spans(collector: RespondingCollector) -> list[Span]:
    return [span_ for body in collector.bodies for span_ in read(body).spans]


def read(body: bytes) -> OtlpBatch:
    return decode_request(body, "application/x-protobuf", None, None, lambda *_: None)


async def run_in(folder: Path, to: ExportSettings | None, runs: int = 1) -> tuple[Runtime, list[Answered[Any]]]:
    """Makes runs of a small agent; returns the closed runtime and the outcomes."""
    runtime = Runtime(Settings(base=folder, export=to))
    agent = govern(Agent(TestModel(custom_output_text="yes")), name="support")
    try:
        with use_runtime(runtime):
            outcomes = [await agent.run("hello?", user="u-1", tenant="acme") for _ in range(runs)]
    finally:
        runtime.close()
    assert all(isinstance(outcome, Answered) for outcome in outcomes)
    return runtime, outcomes  # type: ignore[return-value]


def sent_and_lost(runtime: Runtime) -> tuple[int, int]:
    export = runtime.telemetry.exporter
    assert export is not None
    return export.sent, export.lost


async def test_a_run_is_exported(tmp_path: Path) -> None:
    """Once the runtime is closed, the collector has the same spans of a run as the store, without content."""
    with responding_collector(200) as collector:
        runtime, [outcome] = await run_in(tmp_path, ExportSettings(endpoint=collector.address))
    sent = {span_.span_id: span_ for span_ in received_spans(collector)}
    runtime = Runtime(Settings(base=tmp_path))
    _, stored = runtime.database.read_now(load_trace(outcome.facts.trace_id, None))
    runtime.close()
    assert [(s.span_id, s.parent_id, s.kind, s.name, s.usage, s.cost) for s in stored] == [
        (s.span_id, s.parent_id, s.kind, s.name, s.usage, s.cost) for s in (sent.pop(span_.span_id) for span_ in stored)
    ]
    assert sent == {}
    assert all(b"hello?" not in body for body in collector.bodies)


async def test_content(tmp_path: Path) -> None:
    """With `content = true` content is exported as well, as messages of the GenAI conventions."""
    with responding_collector(200) as collector:
        await run_in(tmp_path, ExportSettings(endpoint=collector.address, content=True))
    [request] = [span_ for span_ in received_spans(collector) if span_.kind == "model"]
    assert request.payload is not None
    assert request.payload["messages"] == [{"role": "user", "parts": [{"type": "text", "content": "hello?"}]}]
    assert request.payload["response"] == [{"role": "assistant", "parts": [{"type": "text", "content": "yes"}]}]


async def test_an_unreachable_collector(tmp_path: Path) -> None:
    """With no collector every run is answered, and every span that was not sent is counted."""
    runtime, _ = await run_in(tmp_path, ExportSettings(endpoint=unused_address()), runs=3)
    assert sent_and_lost(runtime) == (0, 6)


async def test_a_hanging_collector(tmp_path: Path) -> None:
    """A collector that never responds delays no run: a second run ends while the first one's spans are being sent."""
    agent = govern(Agent(TestModel(custom_output_text="yes")), name="support")
    with hanging_collector() as collector:
        runtime = Runtime(Settings(base=tmp_path, export=ExportSettings(endpoint=collector.address)))
        with use_runtime(runtime):
            await agent.run("hello?", user="u-1")
            collector.wait_for_request()
            assert isinstance(await agent.run("hello?", user="u-1"), Answered)
        assert sent_and_lost(runtime) == (0, 0)
    runtime.close()
    assert sent_and_lost(runtime) == (0, 4)


def test_permanent_rejections() -> None:
    """A batch that the collector rejects permanently is lost at once, and the next one is sent."""
    with responding_collector(500, 200) as collector, open_span_exporter(collector.address, (60.0,)) as export:
        for number in range(1, MAX_BATCH_SPANS + 2):
            export.add(span(number))
    assert (export.sent, export.lost, collector.requests) == (1, MAX_BATCH_SPANS, 2)


def test_redirects() -> None:
    """A redirect is not followed, so that the key is sent only to the configured address."""
    with responding_collector(302) as collector, open_span_exporter(collector.address) as export:
        export.add(span())
    assert (export.sent, export.lost, collector.requests) == (0, 1, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retries(status: int) -> None:
    """A batch that the collector rejects temporarily is sent again."""
    with responding_collector(status, status, 200) as collector:
        export = SpanExporter(CollectorClient(collector.address, {}), without_content, retry_seconds=(0.0, 0.0, 0.0))
        add_a_batch(export)
        collector.wait_for(3)
        export.close()
    assert (export.sent, export.lost, collector.requests) == (MAX_BATCH_SPANS, 0, 3)


def test_the_last_retry() -> None:
    """A batch is lost after the last retry."""
    with responding_collector(503) as collector:
        export = SpanExporter(CollectorClient(collector.address, {}), without_content, retry_seconds=(0.0, 0.0))
        add_a_batch(export)
        collector.wait_for(3)
        export.close()
    assert (export.sent, export.lost, collector.requests) == (0, MAX_BATCH_SPANS, 3)


def test_rejected_spans() -> None:
    """Spans that the collector's response reports as rejected count as lost."""
    with responding_collector(200, rejected=2) as collector, open_span_exporter(collector.address) as export:
        for number in (1, 2, 3):
            export.add(span(number))
    assert (export.sent, export.lost) == (1, 2)


def test_a_full_queue() -> None:
    """Spans beyond the size of the queue are lost at once and nothing blocks, so that memory is bounded."""
    with hanging_collector() as collector:
        export = SpanExporter(CollectorClient(collector.address, {}), without_content, retry_seconds=())
        add_a_batch(export)
        collector.wait_for_request()
        for number in range(1, MAX_QUEUED_SPANS + 101):
            export.add(span(number))
        assert (export.sent, export.lost) == (0, 100)
    export.close()
    assert export.lost > 100


def test_adding_after_closing() -> None:
    """A span that is added after closing is lost; an exporter may be closed twice, and unused."""
    with responding_collector(200) as collector, open_span_exporter(collector.address) as export:
        export.add(span(1))
    export.add(span(2))
    export.close()
    assert (export.sent, export.lost) == (1, 1)
    with open_span_exporter(unused_address()) as unused:
        pass
    assert (unused.sent, unused.lost) == (0, 0)


def test_losses_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Losses are logged at once, then not for a minute, and then in one message for all since."""
    clock = VirtualClock()
    with open_span_exporter(unused_address(), clock=clock) as export:
        pass
    with caplog.at_level(logging.WARNING, "handrail.traces.export.exporter"):
        for number in range(1, 6):
            export.add(span(number))
        assert len(caplog.messages) == 1
        clock.advance(LOG_INTERVAL_NS / 1e9)
        export.add(span(6))
    assert [message.split(" spans")[0] for message in caplog.messages] == ["1", "5"]


def test_headers_come_from_the_environment() -> None:
    """A header has the value of the environment variable that the setting names; errors do not contain it."""
    with responding_collector(200) as collector:
        to = ExportSettings(endpoint=collector.address, headers={"Authorization": "COLLECTOR_AUTH"})
        export = open_exporter(to, {"COLLECTOR_AUTH": "Bearer hush"})
        export.add(span())
        export.close()
    [headers] = collector.headers
    assert (headers["Authorization"], headers["Content-Encoding"]) == ("Bearer hush", "gzip")
    with pytest.raises(BadSettings, match="COLLECTOR_AUTH"):
        open_exporter(to, {"COLLECTOR_AUTH": ""})


def test_a_span_that_cannot_be_encoded() -> None:
    """A batch that cannot be encoded is lost, and the next ones are sent."""
    with responding_collector(200) as collector, open_span_exporter(collector.address) as export:
        for _ in range(MAX_BATCH_SPANS):
            export.add(sample("not hex", trace_id="t1"))
        export.add(span())
    assert (export.sent, export.lost) == (1, MAX_BATCH_SPANS)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('[export]\nendpoint = "collector:4318"\n', "export.endpoint: expected a full URL"),
        ('[export]\nendpoint = "http://c/v1/traces"\ncontents = true\n', "did you mean content?"),
        ("[export]\ncontent = true\n", "export.endpoint"),
        ('otel_context = "mixed"\n', "otel_context: expected 'apart' or 'shared'"),
        ('redact = "shop"\n', "redact: expected module:attribute"),
    ],
)
def test_invalid_settings(tmp_path: Path, toml: str, problem: str) -> None:
    """The error for an invalid setting says what is valid."""
    (tmp_path / "handrail.toml").write_text(toml)
    with pytest.raises(BadSettings) as caught:
        load_settings(tmp_path, {})
    assert problem in str(caught.value)


def test_export_settings(tmp_path: Path) -> None:
    """Export is configured in handrail.toml or by variables; the repr hides the address, which may have a key."""
    (tmp_path / "handrail.toml").write_text('[export]\nendpoint = "http://key@c/v1/traces"\n')
    settings = load_settings(tmp_path, {"HANDRAIL_EXPORT__CONTENT": "true"})
    assert settings.export == ExportSettings(endpoint="http://key@c/v1/traces", content=True)
    assert "key" not in repr(settings)
