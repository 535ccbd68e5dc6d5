"""An agent under `govern` answers as it does without it, and says what it cost."""

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
from handrail.config.settings import Price
from handrail.runs.store.runs import RunView, list_runs, load_run
from handrail.testing import VirtualClock, sandbox
from tests.runs.scripts import Count, Script, calls, counts, says

pytestmark = pytest.mark.usefixtures("runtime")


def find(number: str) -> str:
    """Finds a parcel."""
    return f"parcel {number}"


def agent_of(script: Script, **options: Any) -> Agent[Any, Count]:
    return Agent(script.model, output_type=Count, tools=[tool(find, effect="reads")], **options)


async def test_a_typed_answer(runtime: Runtime) -> None:
    """An answer has the agent's output, a message for the user, and the facts of its run."""
    script = Script(says(calls("find", number="7")), counts(3))
    agent = govern(agent_of(script), name="counter", message=lambda found: f"There are {found.count}.")
    outcome = await agent.run("How many?", user="u-1", tenant="acme")
    assert isinstance(outcome, Answered)
    assert outcome.output == Count(count=3)
    assert outcome.message == "There are 3."
    assert not outcome.retried
    assert (outcome.facts.requests, outcome.facts.tools, outcome.facts.cost) == (2, ("find",), 0)
    run = await runtime.database.read(lambda conn: load_run(conn, outcome.facts.run_id, runtime.clock.now()))
    assert (run.status, run.path, run.fault) == ("answered", "happy", None)
    assert (run.agent, run.user, run.tenant) == ("counter", "u-1", "acme")
    assert run.trace_id == outcome.facts.trace_id


async def test_a_text_is_its_own_message() -> None:
    """An agent that answers in text says that text; a typed answer without `message` says a plain sentence."""
    text = await govern(Agent(Script(says("It is late.")).model), name="a").run("Where is it?", user="u")
    typed = await govern(agent_of(Script(counts(1))), name="a").run("How many?", user="u")
    assert isinstance(text, Answered)
    assert text.output == text.message == "It is late."
    assert "Count" not in typed.message
    assert typed.message


async def test_cost(tmp_path: Path, clock: VirtualClock) -> None:
    """A run costs what its requests cost together, by the prices in force, and its row adds up their tokens."""
    price = Price(input=Decimal(2), output=Decimal(4))
    priced = Runtime(Settings(base=tmp_path, prices={"script": price}), clock=clock)
    used = RequestUsage(input_tokens=1_000, output_tokens=500)
    turns = [ModelResponse([calls("find", number="7")], usage=used), ModelResponse([TextPart("done")], usage=used)]
    agent = govern(Agent(Script(*turns).model, tools=[find]), name="a")
    try:
        with use_runtime(priced):
            outcome = await agent.run("hi", user="u")
        run = priced.database.read_now(lambda conn: load_run(conn, outcome.facts.run_id, clock.now()))
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
    run = await runtime.database.read(lambda conn: load_run(conn, outcome.facts.run_id, clock.now()))
    assert run.took == timedelta(seconds=90)


async def test_deps_reach_tools_and_instructions() -> None:
    """What is passed as deps is what instructions and tools see."""
    seen: list[str] = []

    def look(ctx: RunContext[str]) -> str:
        seen.append(ctx.deps)
        return "seen"

    script = Script(says(calls("look")), says("ok"))
    agent = Agent(script.model, deps_type=str, tools=[look], instructions=lambda ctx: f"You serve {ctx.deps}.")
    await govern(agent, name="a").run("hi", user="u", deps="acme")
    assert seen == ["acme"]
    assert script.infos[0].instructions == "You serve acme."


async def test_history_is_passed() -> None:
    """A given history comes before the input, and a run may have a history and no input."""
    script = Script(says("ok"), says("ok"))
    agent = govern(Agent(script.model), name="a")
    history: list[ModelMessage] = [ModelRequest([UserPromptPart("first")]), says("yes?")]
    await agent.run("second", user="u", message_history=history)
    assert script.prompts() == ["first", "second"]
    await agent.run(user="u", message_history=history[:1])
    assert script.prompts() == ["first"]


async def test_model_and_settings_are_passed() -> None:
    """A model and settings given to a run take the place of the agent's."""
    unused, script = Script(), Script(says("ok"))
    agent = govern(Agent(unused.model, model_settings={"temperature": 0.1, "top_p": 0.5}), name="a")
    await agent.run("hi", user="u", model=script.model, model_settings={"temperature": 0.9})
    settings = script.infos[0].model_settings or {}
    assert (settings.get("temperature"), settings.get("top_p")) == (0.9, 0.5)
    assert unused.asked == []


async def test_providers_do_not_retry_unseen() -> None:
    """Every request goes out with the provider's own retries off, whatever the agent says."""
    script = Script(says("ok"))
    settings: ModelSettings = {"max_retries": 5}
    await govern(Agent(script.model, model_settings=settings), name="a").run("hi", user="u")
    assert (script.infos[0].model_settings or {}).get("max_retries") == 0


async def test_usage_limits_are_passed() -> None:
    """A limit of Pydantic AI's own ends the run as a fault."""
    script = Script(says(calls("find", number="7")), says(calls("find", number="8")))
    agent = govern(agent_of(script), name="a")
    outcome = await agent.run("hi", user="u", usage_limits=UsageLimits(request_limit=1))
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "usage_limit"
    assert len(script.asked) == 1


async def test_toolsets_and_instructions_are_passed() -> None:
    """Tools and instructions given to a run are the model's to use."""
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
    """A capability given to a run works beside Handrail's own."""
    hooks: Hooks[Any] = Hooks()
    seen: list[str] = []

    @hooks.on.before_model_request
    async def note(_ctx: RunContext[Any], request: Any) -> Any:
        seen.append("asked")
        return request

    outcome = await govern(Agent(Script(says("ok")).model), name="a").run("hi", user="u", capabilities=[hooks])
    assert seen == ["asked"]
    assert outcome.facts.requests == 1


async def test_output_type_is_passed() -> None:
    """An output type given to a run is the one its answer has."""
    outcome = await govern(Agent(Script(counts(4)).model), name="a").run("hi", user="u", output_type=Count)
    assert isinstance(outcome, Answered)
    found: object = outcome.output
    assert found == Count(count=4)


async def test_output_type_and_message() -> None:
    """A run with an output type of its own ends well in an agent whose `message` reads the usual one."""
    agent = govern(agent_of(Script(says("three"))), name="a", message=lambda found: f"{found.count + 1}")
    outcome = await agent.run("hi", user="u", output_type=str)
    assert isinstance(outcome, Answered)


async def test_pictures() -> None:
    """Input of several parts reaches the model as it is."""
    script = Script(says("ok"))
    pixels = BinaryContent(data=b"\xff\x00", media_type="image/png")
    parts: list[UserContent] = ["Look", ImageUrl("https://example.com/a.png"), pixels]
    outcome = await govern(Agent(script.model), name="a").run(parts, user="u")
    assert isinstance(outcome, Answered)
    assert script.prompts() == [parts]


async def test_streamed_inside() -> None:
    """A run whose events are listened to is streamed, and recorded like any other."""

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
    """Under `override` the overriding model answers, and the agent itself still ends in its own output type."""
    inner = Agent(TestModel(custom_output_text="own"))
    agent = govern(inner, name="a")
    with inner.override(model=TestModel(custom_output_text="other")):
        outcome = await agent.run("hi", user="u")
    assert outcome.message == "other"
    assert (await inner.run("hi")).output == "own"


@contextmanager
def nothing_recorded(runtime: Runtime) -> Iterator[None]:
    yield
    found = runtime.database.read_now(
        lambda conn: list_runs(conn, runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
    )
    assert found == []


@pytest.mark.parametrize(
    "asked",
    [
        {"input": ""},
        {"input": "a" * 1_000_001},
        {"input": "\ud800"},
        {"user": ""},
        {"tenant": "a\nb"},
        {"conversation_id": " "},
    ],
    ids=lambda asked: next(iter(asked)),
)
async def test_bad_input(runtime: Runtime, asked: dict[str, Any]) -> None:
    """What is refused before it runs asks no model and leaves no run behind."""
    script = Script()
    with nothing_recorded(runtime), pytest.raises(BadInput):
        await govern(Agent(script.model), name="a").run(**{"input": "hi", "user": "u", **asked})
    assert script.asked == []


@pytest.mark.parametrize("name", ["", "two words", "-a", "a--b", "a/b", "a_b"])
def test_bad_agent_names(name: str) -> None:
    """An agent's name is words of letters and digits, joined by single hyphens."""
    with pytest.raises(BadInput, match="agent name"):
        govern(Agent(TestModel()), name=name)


def test_run_sync() -> None:
    """run_sync runs without a loop, as often as it is called."""
    agent = govern(Agent(Script(says("one"), says("two")).model), name="a")
    assert [agent.run_sync("hi", user="u").message for _ in range(2)] == ["one", "two"]


def test_run_sync_in_another_runtime(tmp_path: Path) -> None:
    """run_sync runs in the runtime that is the current one at each call."""
    agent = govern(Agent(TestModel()), name="a")
    ids = []
    for name in ("one.db", "two.db"):
        with sandbox(tmp_path, store=name) as opened:
            ids.append(agent.run_sync("hi", user="u").facts.run_id)
            found = opened.database.read_now(lambda conn: [run.run_id for run in newest(conn)])
            assert found == ids[-1:]


def newest(conn: Connection) -> list[RunView]:
    return list_runs(conn, VirtualClock().now(), tenant=None, agent=None, limit=9, before=None)


async def test_run_sync_in_a_loop() -> None:
    """run_sync inside an event loop is refused with the way out."""
    with pytest.raises(BadInput, match="await"):
        govern(Agent(TestModel()), name="a").run_sync("hi", user="u")
