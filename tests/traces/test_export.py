"""Spans go out beside the runs: whatever the collector does, runs neither fail nor wait, and losses are counted."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Runtime, Settings, govern, use_runtime
from handrail.config.settings import ExportTo, load_settings
from handrail.kernel.errors import BadSettings
from handrail.testing import VirtualClock
from handrail.traces.export.exporter import BATCH, LOG_NS, QUEUE, Collector, Export, open_export, without_content
from handrail.traces.model import Span
from handrail.traces.otlp.ingest import Received, read_otlp
from handrail.traces.store.spans import load_trace
from tests.traces.collectors import Answering, answering, dead, hanging
from tests.traces.samples import span as sample

HEX = {"trace_id": "1" * 32, "user": "u-1"}


def span(number: int = 1) -> Span:
    return sample(f"{number:016x}", **HEX, start_ns=1, end_ns=2)


@contextmanager
def exporting(address: str, retry_seconds: Sequence[float] = (), **given: Any) -> Iterator[Export]:
    """An export to that address; what was added in the block has been tried, for its time, when it ends."""
    export = Export(Collector(address, {}), without_content, retry_seconds=retry_seconds, **given)
    try:
        yield export
    finally:
        export.close()


def add_a_batch(export: Export) -> None:
    """As many spans as go out together, which then wait for no others."""
    for number in range(1, BATCH + 1):
        export.add(span(number))


def received(collector: Answering) -> list[Span]:
    return [each for body in collector.bodies for each in read(body).spans]


def read(body: bytes) -> Received:
    return read_otlp(body, "application/x-protobuf", None, None, lambda *_: None)


async def run_in(folder: Path, to: ExportTo | None, runs: int = 1) -> tuple[Runtime, list[Answered[Any]]]:
    """The runtime, closed, and the outcomes of runs of a small agent in it."""
    runtime = Runtime(Settings(base=folder, export=to))
    agent = govern(Agent(TestModel(custom_output_text="yes")), name="support")
    try:
        with use_runtime(runtime):
            outcomes = [await agent.run("hello?", user="u-1", tenant="acme") for _ in range(runs)]
    finally:
        runtime.close()
    assert all(isinstance(outcome, Answered) for outcome in outcomes)
    return runtime, outcomes  # type: ignore[return-value]


def counted(runtime: Runtime) -> tuple[int, int]:
    export = runtime.telemetry.export
    assert export is not None
    return export.sent, export.lost


async def test_a_run_arrives(tmp_path: Path) -> None:
    """The spans of a run are at the collector when the runtime is closed: the same as in the store, without content."""
    with answering(200) as collector:
        runtime, [outcome] = await run_in(tmp_path, ExportTo(endpoint=collector.address))
    sent = {each.span_id: each for each in received(collector)}
    runtime = Runtime(Settings(base=tmp_path))
    _, stored = runtime.database.read_now(lambda conn: load_trace(conn, outcome.facts.trace_id, None))
    runtime.close()
    assert [(e.span_id, e.parent_id, e.kind, e.name, e.usage, e.cost) for e in stored] == [
        (e.span_id, e.parent_id, e.kind, e.name, e.usage, e.cost) for e in (sent.pop(each.span_id) for each in stored)
    ]
    assert sent == {}
    assert all(b"hello?" not in body for body in collector.bodies)


async def test_content_when_it_is_asked_for(tmp_path: Path) -> None:
    """With `content = true` what was said leaves, too, as the conventions' messages."""
    with answering(200) as collector:
        await run_in(tmp_path, ExportTo(endpoint=collector.address, content=True))
    [request] = [each for each in received(collector) if each.kind == "model"]
    assert request.payload is not None
    assert request.payload["messages"] == [{"role": "user", "parts": [{"type": "text", "content": "hello?"}]}]
    assert request.payload["response"] == [{"role": "assistant", "parts": [{"type": "text", "content": "yes"}]}]


async def test_a_dead_collector(tmp_path: Path) -> None:
    """With nobody at the other end every run is answered, and every span that was not sent is counted."""
    runtime, _ = await run_in(tmp_path, ExportTo(endpoint=dead()), runs=3)
    assert counted(runtime) == (0, 6)


async def test_a_hanging_collector(tmp_path: Path) -> None:
    """A collector that never answers holds up no run: further runs are done while it has the first one's spans."""
    agent = govern(Agent(TestModel(custom_output_text="yes")), name="support")
    with hanging() as collector:
        runtime = Runtime(Settings(base=tmp_path, export=ExportTo(endpoint=collector.address)))
        with use_runtime(runtime):
            await agent.run("hello?", user="u-1")
            collector.wait_for_a_request()
            assert isinstance(await agent.run("hello?", user="u-1"), Answered)
        assert counted(runtime) == (0, 0)
    runtime.close()
    assert counted(runtime) == (0, 4)


def test_refusals() -> None:
    """A batch that the collector refuses for good is lost at once, and the next one goes out."""
    with answering(500, 200) as collector, exporting(collector.address, (60.0,)) as export:
        for number in range(1, BATCH + 2):
            export.add(span(number))
    assert (export.sent, export.lost, collector.requests) == (1, BATCH, 2)


def test_a_collector_that_has_moved() -> None:
    """A redirect is followed nowhere, so that no key goes where no setting names."""
    with answering(302) as collector, exporting(collector.address) as export:
        export.add(span())
    assert (export.sent, export.lost, collector.requests) == (0, 1, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes(status: int) -> None:
    """A batch that the collector refuses for a while is sent again."""
    with answering(status, status, 200) as collector:
        export = Export(Collector(collector.address, {}), without_content, retry_seconds=(0.0, 0.0, 0.0))
        add_a_batch(export)
        collector.wait_for(3)
        export.close()
    assert (export.sent, export.lost, collector.requests) == (BATCH, 0, 3)


def test_a_collector_that_does_not_come_back() -> None:
    """A batch is lost after the last retry."""
    with answering(503) as collector:
        export = Export(Collector(collector.address, {}), without_content, retry_seconds=(0.0, 0.0))
        add_a_batch(export)
        collector.wait_for(3)
        export.close()
    assert (export.sent, export.lost, collector.requests) == (0, BATCH, 3)


def test_what_a_collector_does_not_take() -> None:
    """Spans that the collector's answer says it rejected count as lost."""
    with answering(200, rejected=2) as collector, exporting(collector.address) as export:
        for number in (1, 2, 3):
            export.add(span(number))
    assert (export.sent, export.lost) == (1, 2)


def test_what_cannot_wait() -> None:
    """Beyond the spans that may wait, more are lost at once and nobody waits; memory has an end."""
    with hanging() as collector:
        export = Export(Collector(collector.address, {}), without_content, retry_seconds=())
        add_a_batch(export)
        collector.wait_for_a_request()
        for number in range(1, QUEUE + 101):
            export.add(span(number))
        assert (export.sent, export.lost) == (0, 100)
    export.close()
    assert export.lost > 100


def test_after_the_end() -> None:
    """What is added after the end is counted as lost; the end may come twice, and without a beginning."""
    with answering(200) as collector, exporting(collector.address) as export:
        export.add(span(1))
    export.add(span(2))
    export.close()
    assert (export.sent, export.lost) == (1, 1)
    with exporting(dead()) as idle:
        pass
    assert (idle.sent, idle.lost) == (0, 0)


def test_losses_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Lost spans make a line in the log, then none for a minute, and then one for all that were lost since."""
    clock = VirtualClock()
    with exporting(dead(), clock=clock) as export:
        pass
    with caplog.at_level(logging.WARNING, "handrail.export"):
        for number in range(1, 6):
            export.add(span(number))
        assert len(caplog.messages) == 1
        clock.advance(LOG_NS / 1e9)
        export.add(span(6))
    assert [message.split(" spans")[0] for message in caplog.messages] == ["1", "5"]


def test_headers_come_from_the_environment() -> None:
    """A header's value is that of the variable its setting names, and no message has it."""
    with answering(200) as collector:
        to = ExportTo(endpoint=collector.address, headers={"Authorization": "COLLECTOR_AUTH"})
        export = open_export(to, {"COLLECTOR_AUTH": "Bearer hush"})
        export.add(span())
        export.close()
    [headers] = collector.headers
    assert (headers["Authorization"], headers["Content-Encoding"]) == ("Bearer hush", "gzip")
    with pytest.raises(BadSettings, match="COLLECTOR_AUTH"):
        open_export(to, {"COLLECTOR_AUTH": ""})


def test_a_span_that_cannot_be_written() -> None:
    """A fault of ours in one batch costs that batch, and not the ones after it."""
    with answering(200) as collector, exporting(collector.address) as export:
        for _ in range(BATCH):
            export.add(sample("not hex", trace_id="t1"))
        export.add(span())
    assert (export.sent, export.lost) == (1, BATCH)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('[export]\nendpoint = "collector:4318"\n', "export.endpoint: expected the whole address"),
        ('[export]\nendpoint = "http://c/v1/traces"\ncontents = true\n', "did you mean content?"),
        ("[export]\ncontent = true\n", "export.endpoint"),
        ('otel_context = "mixed"\n', "otel_context: expected 'apart' or 'shared'"),
        ('redact = "shop"\n', "redact: expected module:attribute"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, toml: str, problem: str) -> None:
    """A wrong setting is named with what would be right."""
    (tmp_path / "handrail.toml").write_text(toml)
    with pytest.raises(BadSettings) as refused:
        load_settings(tmp_path, {})
    assert problem in str(refused.value)


def test_settings_of_an_export(tmp_path: Path) -> None:
    """Where spans go is a table of handrail.toml, or variables; its address is in no repr, since it may hold a key."""
    (tmp_path / "handrail.toml").write_text('[export]\nendpoint = "http://key@c/v1/traces"\n')
    settings = load_settings(tmp_path, {"HANDRAIL_EXPORT__CONTENT": "true"})
    assert settings.export == ExportTo(endpoint="http://key@c/v1/traces", content=True)
    assert "key" not in repr(settings)
