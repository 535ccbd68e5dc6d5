"""What goes wrong inside a request to a model is the provider's fault, whatever type of exception it is."""

import functools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from pydantic_ai.exceptions import (
    AgentRunError,
    FallbackExceptionGroup,
    ModelAPIError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import (
    BaseToolCallPart,
    FinishReason,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import Model, StreamedResponse

from handrail.fallback.retry import MalformedTwice
from handrail.kernel.errors import HandrailError

from .finish import IncompleteAnswer
from .loop_guard import Looping

_FINISHES = "__handrail_finishes__"
_TYPED = (ModelAPIError, FallbackExceptionGroup, HandrailError, Looping, MalformedTwice, IncompleteAnswer)


@contextmanager
def as_provider_error(model: Model) -> Iterator[None]:
    """Raises what a request to a model raises in the block as a `ModelAPIError`.

    A provider that sends nonsense makes its client, or Pydantic AI, raise whatever its own code happens to: IndexError
    for no choices, a validation error for an HTML page. As a `ModelAPIError` it is a fault of the model in the outcome,
    and lets a `FallbackModel` try the next model. Errors whose type says what happened are left as they are.

    Args:
        model: The model that is requested.
    """
    try:
        yield
    except _TYPED:
        raise
    except Exception as error:
        if isinstance(error, AgentRunError) and not isinstance(error, UnexpectedModelBehavior):
            raise
        if isinstance(error, TimeoutError):
            raise ModelTimeoutError(model.model_name, f"no response in time: {error}") from error
        raise ModelAPIError(model.model_name, f"unusable response: {type(error).__name__}: {error}") from error


def check_parts(parts: Sequence[ModelResponsePart]) -> None:
    """Checks that the parts of a response are of the types that they are declared to be.

    A client passes on whatever a provider sends, and what is wrong with it would show only later, in code that is not
    the provider's.

    Args:
        parts: The parts of a response.

    Raises:
        ValueError: A part is not what it is declared to be.
    """
    for part in parts:
        match part:
            case TextPart() | ThinkingPart():
                _check_text(part.part_kind, part.content)
            case BaseToolCallPart():
                _check_name("tool name", part.tool_name)
                _check_name("tool call id", part.tool_call_id)
                if isinstance(part.args, str):
                    # Half a surrogate pair, which Pydantic AI cannot serialise.
                    part.args.encode()
            case _:
                continue


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {type(value).__name__} in place of text")


def _check_name(what: str, value: object) -> None:
    _check_text(what, value)
    if not value:
        raise ValueError(f"{what} is empty")


def watch_stream(stream: StreamedResponse, model: Model) -> list[FinishReason]:
    """Watches a stream while it is read: what goes wrong is the provider's fault, and every finish reason is noted.

    A stream may say that it was cut, and then that it is whole: the last one alone does not tell.

    Args:
        stream: The stream, before it is read.
        model: The model that sends it.

    Returns:
        A list that gets each finish reason that the stream is given.
    """
    read = stream._get_event_iterator  # noqa: SLF001

    async def watched() -> AsyncIterator[ModelResponseStreamEvent]:
        try:
            with as_provider_error(model):
                async with aclosing(read()) as events:  # type: ignore[type-var]
                    async for event in events:
                        _check_event(event)
                        yield event
        except ModelAPIError:
            # A stream that its reader cancels may break.
            if not stream.cancelled:
                raise

    stream._get_event_iterator = watched  # type: ignore[method-assign]  # noqa: SLF001
    finishes: list[FinishReason] = []
    stream.__dict__[_FINISHES] = finishes
    stream.__class__ = _noting_class(type(stream))
    return finishes


@functools.cache
def _noting_class(cls: type[StreamedResponse]) -> Any:
    """A class of streams that notes the finish reasons an instance is given. They may come between two events."""

    def note_and_set(self: StreamedResponse, name: str, value: object) -> None:
        if name == "finish_reason" and value is not None:
            self.__dict__[_FINISHES].append(value)
        object.__setattr__(self, name, value)

    metaclass: Any = type(cls)
    return metaclass(cls.__name__, (cls,), {"__setattr__": note_and_set, "__module__": cls.__module__})


def _check_event(event: ModelResponseStreamEvent) -> None:
    match event:
        case PartStartEvent():
            check_parts([event.part])
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            _check_text("text", text)
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)) if text is not None:
            _check_text("thinking", text)
        case _:
            return
