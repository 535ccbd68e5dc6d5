"""A governed agent answers as it does alone, and its outcome has its cost."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent, FunctionToolset, ImageUrl, ModelSettings, RunContext, UsageLimits
from pydantic_ai.capabilities import Hooks
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserContent, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage
from sqlalchemy import Connection

from handrail import Answered, BadInput, Failed, Runtime, Settings, govern, tool, use_runtime
from handrail.config.settings import PriceOverride
from handrail.runs.store.queries import RunView, list_runs, load_run
from handrail.testing import VirtualClock, sandbox
from tests.runs.scripts import Count, Script, calls, counts, says

pytestmark = pytest.mark.usefixtures("runtime")


def find(number: str) -> str:
    """Finds a parcel."""
    return f"parcel {number}"


def agent_of(script: Script, **options: Any) -> Agent[Any, Count]:
    return Agent(script.model, output_type=Count, tools=[tool(find, effect="reads")], **options)


async def test_a_typed_answer(runtime: Runtime) -> None:
    """An answer has the agent's output, a message for the user, and the run's facts."""
    script = Script(says(calls("find", number="7")), counts(3))
    agent = govern(agent_of(script), name="counter", message=lambda output: f"There are {output.count}.")
    outcome = await agent.run("How many?", user="u-1", tenant="acme")
    assert isinstance(outcome, Answered)
    assert outcome.output == Count(count=3)
    assert outcome.message == "There are 3."
    assert not outcome.retried
    assert (outcome.facts.requests, outcome.facts.tools, outcome.facts.cost) == (2, ("find",), 0)
    run = await runtime.database.read(load_run(outcome.facts.run_id, runtime.clock.now()))
    assert (run.status, run.path, run.fault) == ("answered", "happy", None)
    assert (run.agent, run.user, run.tenant) == ("counter", "u-1", "acme")
    assert run.trace_id == outcome.facts.trace_id


async def test_the_message_of_a_text_answer() -> None:
    """The message of an answer is its text; of a typed answer without a `message` function, a plain sentence."""
    text = await govern(Agent(Script(says("It is late.")).model), name="a").run("Where is it?", user="u")
    typed = await govern(agent_of(Script(counts(1))), name="a").run("How many?", user="u")
    assert isinstance(text, Answered)
    assert text.output == text.message == "It is late."
    assert "Count" not in typed.message
    assert typed.message


async def test_cost(tmp_path: Path, clock: VirtualClock) -> None:
    """A run costs the sum of its requests at the configured prices, and its row has the sum of their tokens."""
    price = PriceOverride(input=Decimal(2), output=Decimal(4))
    priced = Runtime(Settings(base=tmp_path, prices={"script": price}), clock=clock)
    used = RequestUsage(input_tokens=1_000, output_tokens=500)
    turns = [ModelResponse([calls("find", number="7")], usage=used), ModelResponse([TextPart("done")], usage=used)]
    agent = govern(Agent(Script(*turns).model, tools=[find]), name="a")
    try:
        with use_runtime(priced):
            outcome = await agent.run("hi", user="u")
        run = priced.database.read_now(load_run(outcome.facts.run_id, clock.now()))
    finally:
        priced.close()
    assert outcome.facts.cost == 2 * 4_000_000
    assert (run.cost, run.input_tokens, run.output_tokens, run.requests) == (8_000_000, 2_000, 1_000, 2)


async def test_duration(runtime: Runtime, clock: VirtualClock) -> None:
    """A run's duration is the time that passed while it ran."""

    def slow() -> str:
        clock.advance(90)
        return "done"

    script = Script(says(calls("slow")), says("ok"))
    outcome = await govern(Agent(script.model, tools=[slow]), name="a").run("hi", user="u")
    assert timedelta(seconds=90) <= outcome.facts.duration < timedelta(seconds=91)
    run = await runtime.database.read(load_run(outcome.facts.run_id, clock.now()))
    assert run.duration == timedelta(seconds=90)


async def test_deps_reach_tools_and_instructions() -> None:
    """Instructions and tools get the run's deps."""
    received: list[str] = []

    def read_deps(ctx: RunContext[str]) -> str:
        received.append(ctx.deps)
        return "done"

    script = Script(says(calls("read_deps")), says("ok"))
    agent = Agent(script.model, deps_type=str, tools=[read_deps], instructions=lambda ctx: f"You serve {ctx.deps}.")
    await govern(agent, name="a").run("hi", user="u", deps="acme")
    assert received == ["acme"]
    assert script.infos[0].instructions == "You serve acme."


async def test_history_is_passed() -> None:
    """A message history comes before the input, and a run may have a history and no input."""
    script = Script(says("ok"), says("ok"))
    agent = govern(Agent(script.model), name="a")
    history: list[ModelMessage] = [ModelRequest([UserPromptPart("first")]), says("yes?")]
    await agent.run("second", user="u", message_history=history)
    assert script.prompts() == ["first", "second"]
    await agent.run(user="u", message_history=history[:1])
    assert script.prompts() == ["first"]


async def test_model_and_settings_are_passed() -> None:
    """A model and settings passed to a run replace the agent's."""
    unused, script = Script(), Script(says("ok"))
    agent = govern(Agent(unused.model, model_settings={"temperature": 0.1, "top_p": 0.5}), name="a")
    await agent.run("hi", user="u", model=script.model, model_settings={"temperature": 0.9})
    settings = script.infos[0].model_settings or {}
    assert (settings.get("temperature"), settings.get("top_p")) == (0.9, 0.5)
    assert unused.requests == []


async def test_provider_retries_are_off() -> None:
    """Every request has the provider's own retries turned off, whatever the agent's settings say."""
    script = Script(says("ok"))
    settings: ModelSettings = {"max_retries": 5}
    await govern(Agent(script.model, model_settings=settings), name="a").run("hi", user="u")
    assert (script.infos[0].model_settings or {}).get("max_retries") == 0


async def test_usage_limits_are_passed() -> None:
    """Pydantic AI's own usage limit ends the run as a fault."""
    script = Script(says(calls("find", number="7")), says(calls("find", number="8")))
    agent = govern(agent_of(script), name="a")
    outcome = await agent.run("hi", user="u", usage_limits=UsageLimits(request_limit=1))
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "usage_limit"
    assert len(script.requests) == 1


async def test_toolsets_and_instructions_are_passed() -> None:
    """Toolsets and instructions passed to a run reach the model."""
    script = Script(says(calls("extra")), says("ok"))

    def extra() -> str:
        return "extra"

    outcome = await govern(Agent(script.model, instructions="Be kind."), name="a").run(
        "hi", user="u", toolsets=[FunctionToolset([extra])], instructions="Be brief."
    )
    assert outcome.facts.tools == ("extra",)
    assert "Be kind." in str(script.infos[0].instructions)
    assert "Be brief." in str(script.infos[0].instructions)


async def test_capabilities_are_passed() -> None:
    """A capability passed to a run works beside Handrail's own."""
    hooks: Hooks[Any] = Hooks()
    hook_calls: list[str] = []

    @hooks.on.before_model_request
    async def note(_ctx: RunContext[Any], request: Any) -> Any:
        hook_calls.append("called")
        return request

    outcome = await govern(Agent(Script(says("ok")).model), name="a").run("hi", user="u", capabilities=[hooks])
    assert hook_calls == ["called"]
    assert outcome.facts.requests == 1


async def test_output_type_is_passed() -> None:
    """An output type passed to a run is the type of its answer."""
    outcome = await govern(Agent(Script(counts(4)).model), name="a").run("hi", user="u", output_type=Count)
    assert isinstance(outcome, Answered)
    output: object = outcome.output
    assert output == Count(count=4)


async def test_output_type_and_message() -> None:
    """A run with its own output type does not use the agent's `message` function, which is for the usual type."""
    agent = govern(agent_of(Script(says("three"))), name="a", message=lambda output: f"{output.count + 1}")
    outcome = await agent.run("hi", user="u", output_type=str)
    assert isinstance(outcome, Answered)


async def test_images() -> None:
    """Input of several parts reaches the model unchanged."""
    script = Script(says("ok"))
    pixels = BinaryContent(data=b"\xff\x00", media_type="image/png")
    parts: list[UserContent] = ["See", ImageUrl("https://example.com/a.png"), pixels]
    outcome = await govern(Agent(script.model), name="a").run(parts, user="u")
    assert isinstance(outcome, Answered)
    assert script.prompts() == [parts]


async def test_event_stream_handler() -> None:
    """A run with an event stream handler is streamed, and recorded like any other."""

    async def stream(_messages: object, _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        yield {0: DeltaToolCall("final_result", '{"count": 5}')}

    events: list[object] = []

    async def listen(_ctx: RunContext[Any], stream: AsyncIterable[object]) -> None:
        events.extend([event async for event in stream])

    agent = govern(Agent(FunctionModel(stream_function=stream), output_type=Count), name="a")
    outcome = await agent.run("hi", user="u", event_stream_handler=listen)
    assert isinstance(outcome, Answered)
    assert outcome.output == Count(count=5)
    assert outcome.facts.requests == 1
    assert events


async def test_the_agent_is_unchanged() -> None:
    """`override` applies to the governed agent, and the agent itself is not changed."""
    inner = Agent(TestModel(custom_output_text="own"))
    agent = govern(inner, name="a")
    with inner.override(model=TestModel(custom_output_text="other")):
        outcome = await agent.run("hi", user="u")
    assert outcome.message == "other"
    assert (await inner.run("hi")).output == "own"


@contextmanager
def nothing_recorded(runtime: Runtime) -> Iterator[None]:
    yield
    recorded = runtime.database.read_now(list_runs(runtime.clock.now(), tenant=None, agent=None, limit=9, before=None))
    assert recorded == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"input": ""},
        {"input": "a" * 1_000_001},
        {"input": "\ud800"},
        {"user": ""},
        {"tenant": "a\nb"},
        {"conversation_id": " "},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
async def test_bad_input(runtime: Runtime, overrides: dict[str, Any]) -> None:
    """Invalid input raises BadInput; no model is called and no run is stored."""
    script = Script()
    with nothing_recorded(runtime), pytest.raises(BadInput):
        await govern(Agent(script.model), name="a").run(**{"input": "hi", "user": "u", **overrides})
    assert script.requests == []


@pytest.mark.parametrize("name", ["", "two words", "-a", "a--b", "a/b", "a_b"])
def test_bad_agent_names(name: str) -> None:
    """An agent's name is words of letters and digits, joined by single hyphens."""
    with pytest.raises(BadInput, match="agent name"):
        govern(Agent(TestModel()), name=name)


def test_run_sync() -> None:
    """run_sync works without an event loop, any number of times."""
    agent = govern(Agent(Script(says("one"), says("two")).model), name="a")
    assert [agent.run_sync("hi", user="u").message for _ in range(2)] == ["one", "two"]


def test_run_sync_in_another_runtime(tmp_path: Path) -> None:
    """Each call of run_sync uses the runtime that is current at that call."""
    agent = govern(Agent(TestModel()), name="a")
    ids = []
    for name in ("one.db", "two.db"):
        with sandbox(tmp_path, store=name) as runtime:
            ids.append(agent.run_sync("hi", user="u").facts.run_id)
            run_ids = runtime.database.read_now(lambda conn: [run.run_id for run in newest(conn)])
            assert run_ids == ids[-1:]


def newest(conn: Connection) -> list[RunView]:
    return list_runs(VirtualClock().now(), tenant=None, agent=None, limit=9, before=None)(conn)


async def test_run_sync_in_a_loop() -> None:
    """run_sync inside an event loop raises BadInput, which says what to use instead."""
    with pytest.raises(BadInput, match="await"):
        govern(Agent(TestModel()), name="a").run_sync("hi", user="u")
