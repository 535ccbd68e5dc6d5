"""What a streamed run says while it is under way. Text is provisional; only `Ended` carries an answer."""

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
    """More text, shown until it is taken back."""

    text: str


@dataclass(frozen=True)
class ToolCalled:
    """The model asks for a tool; whether it is executed shows in what follows."""

    tool: str
    call_id: str


@dataclass(frozen=True)
class ToolReturned:
    """A tool call came to its end."""

    tool: str
    call_id: str


@dataclass(frozen=True)
class Retracted:
    """All text streamed so far is void: it did not validate, or the run did not end in the agent's own answer."""

    reason: str


@dataclass(frozen=True)
class Ended(Generic[OutputT]):
    """The last event; the outcome is committed."""

    outcome: Outcome[OutputT]


StreamEvent: TypeAlias = TextDelta | ToolCalled | ToolReturned | Retracted | Ended[OutputT]
EventHandler: TypeAlias = Callable[[RunContext[Any], AsyncIterable[AgentStreamEvent]], Awaitable[None]]


async def streamed(
    start: Callable[[EventHandler], Awaitable[Outcome[OutputT]]],
) -> AsyncGenerator[StreamEvent[OutputT]]:
    """The events of the run that `start` makes with the handler it is given. Leaving early cancels the run."""
    queue: asyncio.Queue[StreamEvent[OutputT] | None] = asyncio.Queue()
    shown = False

    async def handle(ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        nonlocal shown
        if shown and _follows_a_rejection(ctx):
            queue.put_nowait(Retracted("malformed"))
            shown = False
        async for event in events:
            if (found := _read(event)) is not None:
                shown = shown or isinstance(found, TextDelta)
                queue.put_nowait(found)

    async def run() -> Outcome[OutputT]:
        try:
            return await start(handle)
        finally:
            queue.put_nowait(None)

    running = asyncio.ensure_future(run())
    try:
        while (event := await queue.get()) is not None:
            yield event
        outcome = await running
        if shown and not isinstance(outcome, Answered):
            yield Retracted(outcome.type)
        yield Ended(outcome)
    finally:
        if not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def _read(event: AgentStreamEvent) -> TextDelta | ToolCalled | ToolReturned | None:
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return TextDelta(text) if text else None
        case FunctionToolCallEvent(part=call):
            return ToolCalled(call.tool_name, call.tool_call_id)
        case FunctionToolResultEvent(part=part):
            return ToolReturned(part.tool_name or "", part.tool_call_id)
        case _:
            return None


def _follows_a_rejection(ctx: RunContext[Any]) -> bool:
    last = ctx.messages[-1] if ctx.messages else None
    return isinstance(last, ModelRequest) and any(isinstance(part, RetryFeedbackPart) for part in last.parts)
