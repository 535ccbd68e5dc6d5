"""Handrail beside a program's own OpenTelemetry: nothing twice, no parents lost, one tree in one place."""

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
    """Looks an order up, in a span of the program's own."""
    with trace.get_tracer("shop").start_as_current_span("query"):
        return f"order {order} is on its way"


def support(*capabilities: Instrumentation) -> GovernedAgent[Any, str]:
    agent = Agent(FunctionModel(reply), tools=[tool(look_up, effect="reads")], capabilities=capabilities)
    return govern(agent, name="support")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the process's global provider sends to the program's backend."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # OpenTelemetry lets a process set it once; a test is not the whole process.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def ours_of(
    folder: Path, agent: GovernedAgent[Any, str], otel_context: Literal["apart", "shared"] = "apart"
) -> list[Span]:
    """The spans that a run leaves in the store."""
    runtime = Runtime(Settings(base=folder, otel_context=otel_context))
    try:
        with use_runtime(runtime):
            outcome = await agent.run("Where is it?", user="u-1")
        assert isinstance(outcome, Answered)
        return runtime.database.read_now(lambda conn: load_trace(conn, outcome.facts.trace_id, None))[1]
    finally:
        runtime.close()


def named(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name.startswith(name)]
    return found


def ids(spans: Mapping[str, ReadableSpan] | tuple[ReadableSpan, ...]) -> dict[str, str | None]:
    """Each span's id in hex and its parent's."""
    return {
        f"{span.get_span_context().span_id:016x}": f"{span.parent.span_id:016x}" if span.parent else None  # type: ignore[union-attr]
        for span in spans
        if isinstance(span, ReadableSpan)
    }


async def test_their_backend_gets_their_spans_only(tmp_path: Path, theirs: InMemorySpanExporter) -> None:
    """None of Handrail's spans go through the global provider, and none of the program's into Handrail's store."""
    ours = await ours_of(tmp_path, support())
    assert [span.name for span in theirs.get_finished_spans()] == ["query"]
    assert "query" not in [span.name for span in ours]


async def test_their_spans_keep_their_parents(tmp_path: Path, theirs: InMemorySpanExporter) -> None:
    """What the program traces in a tool hangs below the program's own span, so that its backend misses no parent."""
    with trace.get_tracer("shop").start_as_current_span("request"):
        await ours_of(tmp_path, support())
    sent = ids(theirs.get_finished_spans())
    assert len(sent) == 2
    assert set(sent.values()) - {None} <= set(sent)


async def test_a_run_belongs_to_the_trace_around_it(tmp_path: Path, theirs: InMemorySpanExporter) -> None:
    """A run inside a span of the program's is of its trace, below it; inside the run, ours are below ours."""
    with trace.get_tracer("shop").start_as_current_span("request") as request:
        ours = await ours_of(tmp_path, support())
    outer = request.get_span_context()
    root = named(ours, "invoke_agent")
    assert (root.trace_id, root.parent_id) == (f"{outer.trace_id:032x}", f"{outer.span_id:016x}")
    assert {span.parent_id for span in ours if span is not root} == {root.span_id}
    assert {span.trace_id for span in ours} == {root.trace_id}
    assert len(theirs.get_finished_spans()) == 2


async def test_shared_with_the_program(tmp_path: Path, theirs: InMemorySpanExporter) -> None:
    """With `otel_context = "shared"`, for one place that gets both, the program's spans hang below the tool's."""
    with trace.get_tracer("shop").start_as_current_span("request") as request:
        ours = await ours_of(tmp_path, support(), "shared")
    query = next(span for span in theirs.get_finished_spans() if span.name == "query")
    assert query.parent is not None
    assert f"{query.parent.span_id:016x}" == named(ours, "execute_tool").span_id
    assert named(ours, "invoke_agent").parent_id == f"{request.get_span_context().span_id:016x}"


@pytest.mark.parametrize("otel_context", ["apart", "shared"])
async def test_an_instrumented_agent(
    tmp_path: Path, theirs: InMemorySpanExporter, otel_context: Literal["apart", "shared"]
) -> None:
    """Where Pydantic AI's own tracing is on, each backend has each request to the model once."""
    ours = await ours_of(tmp_path, support(Instrumentation(settings=InstrumentationSettings())), otel_context)
    sent = theirs.get_finished_spans()
    assert sum(span.name.startswith("chat") for span in ours) == 2
    assert sum(span.name.startswith("chat") for span in sent) == 2
    lost = set(ids(sent).values()) - {None} - set(ids(sent))
    assert lost == (set() if otel_context == "apart" else lost & {span.span_id for span in ours})


async def test_what_a_tool_says_of_the_current_span(tmp_path: Path, theirs: InMemorySpanExporter) -> None:
    """Code that marks the current span in a tool marks the program's own."""

    def look_up(order: int) -> str:
        """Looks an order up."""
        trace.get_current_span().set_attribute("order", order)
        return "found"

    agent = govern(Agent(FunctionModel(reply), tools=[tool(look_up, effect="reads")]), name="support")
    with trace.get_tracer("shop").start_as_current_span("request"):
        await ours_of(tmp_path, agent)
    [request] = theirs.get_finished_spans()
    assert request.attributes == {"order": 7}
