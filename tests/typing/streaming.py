"""A streamed run yields five types of events, the last with the outcome."""

from collections.abc import AsyncGenerator
from typing import assert_never, assert_type

from handrail import Answered, Ended, Outcome, Retracted, StreamEvent, TextDelta, ToolCalled, ToolReturned
from tests.typing.support import Triage, support


async def stream() -> None:
    """The events have the agent's output type, and matching all five classes is exhaustive."""
    assert_type(support.stream("Hello", user="u-17"), AsyncGenerator[StreamEvent[Triage]])
    async for event in support.stream("Hello", user="u-17"):
        match event:
            case TextDelta(text=text):
                assert_type(text, str)
            case ToolCalled(tool=tool, call_id=call_id) | ToolReturned(tool=tool, call_id=call_id):
                assert_type(tool, str)
                assert_type(call_id, str)
            case Retracted(reason=reason):
                assert_type(reason, str)
            case Ended(outcome=outcome):
                assert_type(outcome, Outcome[Triage])
                if isinstance(outcome, Answered):
                    assert_type(outcome.output, Triage)
            case _:
                assert_never(event)


async def misuse() -> None:
    """A stream is not awaited, needs a user, and only its last event has an outcome."""
    await support.stream("Hello", user="u-17")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    support.stream("Hello")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async for event in support.stream("Hello", user="u-17"):
        event.outcome  # type: ignore[union-attr]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        match event:
            case TextDelta() | Ended():
                pass
            case _:
                assert_never(event)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
