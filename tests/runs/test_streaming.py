"""A streamed run: provisional text, retractions, and the outcome at the end."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from handrail import Answered, Ended, FellBack, Retracted, Runtime, TextDelta, ToolCalled, ToolReturned, govern, tool
from handrail.runs.store.queries import list_runs


async def _bad_then_good(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    again = any(isinstance(message, ModelResponse) for message in messages)
    for word in ("good", " text") if again else ("bad", " text"):
        yield word


def _validating_agent() -> Agent[object, str]:
    agent = Agent(FunctionModel(stream_function=_bad_then_good))

    @agent.output_validator
    def only_good(_ctx: RunContext[object], text: str) -> str:
        if "bad" in text:
            raise ModelRetry("say it better")
        return text

    return agent


async def test_rejected_text_is_retracted() -> None:
    """The text of a rejected answer is retracted before the next one starts."""
    events = [event async for event in govern(_validating_agent(), name="a").stream("hi", user="u")]
    *shown, last = events
    assert shown == [
        TextDelta("bad"),
        TextDelta(" text"),
        Retracted("malformed"),
        TextDelta("good"),
        TextDelta(" text"),
    ]
    assert isinstance(last, Ended)
    assert isinstance(last.outcome, Answered)
    assert last.outcome.output == "good text"


async def test_text_is_retracted_when_the_run_falls_back() -> None:
    """If the run falls back, the streamed text is retracted, and the last event has the fallback's outcome."""

    async def never_good(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        yield "bad"

    async def rules(_request: object) -> str:
        return "from the rules"

    agent = _validating_agent()
    agent.model = FunctionModel(stream_function=never_good)
    *_, retracted, last = [event async for event in govern(agent, name="a", fallback=rules).stream("hi", user="u")]
    assert retracted == Retracted("fell_back")
    assert isinstance(last, Ended)
    assert isinstance(last.outcome, FellBack)


async def test_tool_events() -> None:
    """A tool's call and return are events, in order, with the call's id."""

    async def calling(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="find_order", json_args="{}", tool_call_id="c-1")}
        else:
            yield "found"

    def find_order() -> str:
        """Find an order."""
        return "here"

    agent = Agent(FunctionModel(stream_function=calling), tools=[tool(find_order, effect="reads")])
    events = [event async for event in govern(agent, name="a").stream("hi", user="u")]
    assert events[:3] == [ToolCalled("find_order", "c-1"), ToolReturned("find_order", "c-1"), TextDelta("found")]


async def test_leaving_a_stream_cancels_its_run(runtime: Runtime) -> None:
    """Leaving the stream early cancels the run, which is recorded as cancelled."""
    async with aclosing(govern(_validating_agent(), name="a").stream("hi", user="u")) as events:
        async for _ in events:
            break
    now = runtime.clock.now()
    [run] = runtime.database.read_now(list_runs(now, tenant=None, agent=None, limit=5, before=None))
    assert (run.status, run.fault) == ("failed", "cancelled")
