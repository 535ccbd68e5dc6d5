"""A streamed run: provisional text, what takes it back, and the outcome at the end."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from handrail import Answered, Ended, FellBack, Retracted, Runtime, TextDelta, ToolCalled, ToolReturned, govern, tool
from handrail.runs.store.runs import list_runs


async def _bad_then_good(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
    again = any(isinstance(message, ModelResponse) for message in messages)
    for word in ("good", " text") if again else ("bad", " text"):
        yield word


def _picky() -> Agent[object, str]:
    agent = Agent(FunctionModel(stream_function=_bad_then_good))

    @agent.output_validator
    def only_good(_ctx: RunContext[object], text: str) -> str:
        if "bad" in text:
            raise ModelRetry("say it better")
        return text

    return agent


async def test_text_that_does_not_validate_is_taken_back() -> None:
    """What was streamed of a rejected answer is retracted before the next one begins."""
    events = [event async for event in govern(_picky(), name="a").stream("hi", user="u")]
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


async def test_a_stream_that_ends_in_the_fallback_takes_its_text_back() -> None:
    """Text of an agent whose run fell back is void, and the last event says what stands instead."""

    async def never_good(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        yield "bad"

    async def instead(_request: object) -> str:
        return "from the rules"

    agent = _picky()
    agent.model = FunctionModel(stream_function=never_good)
    *_, retracted, last = [event async for event in govern(agent, name="a", fallback=instead).stream("hi", user="u")]
    assert retracted == Retracted("fell_back")
    assert isinstance(last, Ended)
    assert isinstance(last.outcome, FellBack)


async def test_tools_are_told_as_they_are_called_and_return() -> None:
    """A tool's call and its return are events, in order, with the call's id."""

    async def calling(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="look", json_args="{}", tool_call_id="c-1")}
        else:
            yield "seen"

    def look() -> str:
        """Look."""
        return "here"

    agent = Agent(FunctionModel(stream_function=calling), tools=[tool(look, effect="reads")])
    events = [event async for event in govern(agent, name="a").stream("hi", user="u")]
    assert events[:3] == [ToolCalled("look", "c-1"), ToolReturned("look", "c-1"), TextDelta("seen")]


async def test_leaving_a_stream_cancels_its_run(runtime: Runtime) -> None:
    """A reader that leaves early ends the run, which is recorded as cancelled."""
    async with aclosing(govern(_picky(), name="a").stream("hi", user="u")) as events:
        async for _ in events:
            break
    now = runtime.clock.now()
    [run] = runtime.database.read_now(lambda conn: list_runs(conn, now, tenant=None, agent=None, limit=5, before=None))
    assert (run.status, run.fault) == ("failed", "cancelled")
