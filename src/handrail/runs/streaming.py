"""The events of a streamed run. Text is provisional; only `Ended` has an answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic_ai import RunContext
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelRequest,
    PartDeltaEvent,
    PartStartEvent,
    RetryFeedbackPart,
    TextPart,
    TextPartDelta,
)

from .outcome import Answered, Outcome

OutputT = TypeVar("OutputT")


@dataclass(frozen=True)
class TextDelta:
    """More text. It is provisional: a later `Retracted` takes it back."""

    text: str
    """To append to the text so far."""


@dataclass(frozen=True)
class ToolCalled:
    """The model calls a tool, which may yet be rejected or need an approval before it is executed."""

    tool: str
    call_id: str
    """The same as in the `ToolReturned` of this call."""


@dataclass(frozen=True)
class ToolReturned:
    """A tool call ended."""

    tool: str
    call_id: str
    """The same as in the `ToolCalled` of this call."""


@dataclass(frozen=True)
class Retracted:
    """All text so far is void: it did not validate, or the run did not end with the agent's own answer."""

    reason: str
    """`malformed`, or the type of the outcome: `fell_back`, `escalated` and so on."""


@dataclass(frozen=True)
class Ended(Generic[OutputT]):
    """The last event."""

    outcome: Outcome[OutputT]
    """How the run ended, as it was committed."""


StreamEvent: TypeAlias = TextDelta | ToolCalled | ToolReturned | Retracted | Ended[OutputT]
"""What `GovernedAgent.stream` yields."""
EventHandler: TypeAlias = Callable[[RunContext[Any], AsyncIterable[AgentStreamEvent]], Awaitable[None]]


async def stream_events(
    start: Callable[[EventHandler], Awaitable[Outcome[OutputT]]],
) -> AsyncGenerator[StreamEvent[OutputT]]:
    """Runs an agent and yields the run's events. Leaving the generator early cancels the run.

    Args:
        start: Runs the agent with an event handler and returns the outcome.
    """
    queue: asyncio.Queue[StreamEvent[OutputT] | None] = asyncio.Queue()
    has_text = False  # whether there is text to retract

    async def handle(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        nonlocal has_text
        if has_text and _follows_rejection(ctx):
            queue.put_nowait(Retracted("malformed"))
            has_text = False
        async for event in events:
            if (stream_event := _stream_event(event)) is not None:
                has_text = has_text or isinstance(stream_event, TextDelta)
                queue.put_nowait(stream_event)

    async def run() -> Outcome[OutputT]:
        try:
            return await start(handle)
        finally:
            queue.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        while (event := await queue.get()) is not None:
            yield event
        outcome = await task
        if has_text and not isinstance(outcome, Answered):
            yield Retracted(outcome.type)
        yield Ended(outcome)
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _stream_event(event: AgentStreamEvent) -> TextDelta | ToolCalled | ToolReturned | None:
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return TextDelta(text) if text else None
        case FunctionToolCallEvent(part=call):
            return ToolCalled(call.tool_name, call.tool_call_id)
        case FunctionToolResultEvent(part=part):
            return ToolReturned(part.tool_name or "", part.tool_call_id)
        case _:
            return None


def _follows_rejection(ctx: RunContext[Any]) -> bool:
    last = ctx.messages[-1] if ctx.messages else None
    return isinstance(last, ModelRequest) and any(isinstance(part, RetryFeedbackPart) for part in last.parts)
