"""Handrail in a program with its own OpenTelemetry: no duplicate spans and no missing parents."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings

from handrail import Answered, GovernedAgent, Runtime, Settings, govern, tool, use_runtime
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace


def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("yes") if len(messages) > 1 else ToolCallPart("look_up", {"order": 7})])


def look_up(order: int) -> str:
    """Looks an order up, in one of the program's spans."""
    with trace.get_tracer("shop").start_as_current_span("query"):
        return f"order {order} is on its way"


def support(*capabilities: Instrumentation) -> GovernedAgent[Any, str]:
    agent = Agent(FunctionModel(reply), tools=[tool(look_up, effect="reads")], capabilities=capabilities)
    return govern(agent, name="support")


@pytest.fixture
def program_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """An exporter with the spans that the process's global provider sends to the program's backend."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # OpenTelemetry lets a process set the provider only once.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def run_and_load(
    folder: Path, agent: GovernedAgent[Any, str], otel_context: Literal["apart", "shared"] = "apart"
) -> list[Span]:
    """Makes a run and returns its stored spans."""
    runtime = Runtime(Settings(base=folder, otel_context=otel_context))
    try:
        with use_runtime(runtime):
            outcome = await agent.run("Where is it?", user="u-1")
        assert isinstance(outcome, Answered)
        return runtime.database.read_now(load_trace(outcome.facts.trace_id, None))[1]
    finally:
        runtime.close()


def named(spans: list[Span], name: str) -> Span:
    [matching] = [span for span in spans if span.name.startswith(name)]
    return matching


def ids(spans: Mapping[str, ReadableSpan] | tuple[ReadableSpan, ...]) -> dict[str, str | None]:
    """Each span's id and that of its parent, in hex."""
    return {
        f"{span.get_span_context().span_id:016x}": f"{span.parent.span_id:016x}" if span.parent else None  # type: ignore[union-attr]
        for span in spans
        if isinstance(span, ReadableSpan)
    }


async def test_each_backend_gets_its_own_spans(tmp_path: Path, program_spans: InMemorySpanExporter) -> None:
    """Handrail's spans do not go through the global provider, and the program's are not stored."""
    stored = await run_and_load(tmp_path, support())
    assert [span.name for span in program_spans.get_finished_spans()] == ["query"]
    assert "query" not in [span.name for span in stored]


async def test_the_programs_spans_keep_their_parents(tmp_path: Path, program_spans: InMemorySpanExporter) -> None:
    """The program's spans inside a tool have parents among its own spans, so that its backend misses none."""
    with trace.get_tracer("shop").start_as_current_span("request"):
        await run_and_load(tmp_path, support())
    sent = ids(program_spans.get_finished_spans())
    assert len(sent) == 2
    assert set(sent.values()) - {None} <= set(sent)


async def test_a_run_belongs_to_the_trace_around_it(tmp_path: Path, program_spans: InMemorySpanExporter) -> None:
    """A run inside a span of the program belongs to its trace; Handrail's spans are below its own."""
    with trace.get_tracer("shop").start_as_current_span("request") as request:
        stored = await run_and_load(tmp_path, support())
    outer = request.get_span_context()
    root = named(stored, "invoke_agent")
    assert (root.trace_id, root.parent_id) == (f"{outer.trace_id:032x}", f"{outer.span_id:016x}")
    assert {span.parent_id for span in stored if span is not root} == {root.span_id}
    assert {span.trace_id for span in stored} == {root.trace_id}
    assert len(program_spans.get_finished_spans()) == 2


async def test_shared_with_the_program(tmp_path: Path, program_spans: InMemorySpanExporter) -> None:
    """With `otel_context = "shared"` the program's spans are children of the tool's."""
    with trace.get_tracer("shop").start_as_current_span("request") as request:
        stored = await run_and_load(tmp_path, support(), "shared")
    query = next(span for span in program_spans.get_finished_spans() if span.name == "query")
    assert query.parent is not None
    assert f"{query.parent.span_id:016x}" == named(stored, "execute_tool").span_id
    assert named(stored, "invoke_agent").parent_id == f"{request.get_span_context().span_id:016x}"


@pytest.mark.parametrize("otel_context", ["apart", "shared"])
async def test_an_instrumented_agent(
    tmp_path: Path, program_spans: InMemorySpanExporter, otel_context: Literal["apart", "shared"]
) -> None:
    """If Pydantic AI's own instrumentation is on, each backend has each model request once."""
    stored = await run_and_load(tmp_path, support(Instrumentation(settings=InstrumentationSettings())), otel_context)
    sent = program_spans.get_finished_spans()
    assert sum(span.name.startswith("chat") for span in stored) == 2
    assert sum(span.name.startswith("chat") for span in sent) == 2
    lost = set(ids(sent).values()) - {None} - set(ids(sent))
    assert lost == (set() if otel_context == "apart" else lost & {span.span_id for span in stored})


async def test_the_current_span_in_a_tool(tmp_path: Path, program_spans: InMemorySpanExporter) -> None:
    """Code that sets attributes on the current span in a tool sets them on the program's."""

    def look_up(order: int) -> str:
        """Looks an order up."""
        trace.get_current_span().set_attribute("order", order)
        return "found"

    agent = govern(Agent(FunctionModel(reply), tools=[tool(look_up, effect="reads")]), name="support")
    with trace.get_tracer("shop").start_as_current_span("request"):
        await run_and_load(tmp_path, agent)
    [request] = program_spans.get_finished_spans()
    assert request.attributes == {"order": 7}
