"""The wire formats by path, each a set of pure functions between JSON and the values of this package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .answer import ModelResult
from .anthropic_messages import (
    anthropic_body,
    anthropic_error,
    anthropic_events,
    anthropic_request,
    anthropic_stream_error,
)
from .events import ServerSentEvent
from .openai_chat import chat_body, chat_events, chat_request, chat_stream_error, openai_error
from .openai_responses import responses_body, responses_events, responses_request, responses_stream_error
from .prompt import ProviderRequest


class ErrorFormat(Protocol):
    """Words an error as a provider does."""

    def __call__(self, status: int, message: str, code: str | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class WireFormat:
    """One provider's way to ask for an answer and to give it."""

    provider: Literal["openai", "anthropic"]
    read: Callable[[dict[str, Any]], ProviderRequest]
    body: Callable[[ModelResult], dict[str, Any]]
    events: Callable[[ModelResult], list[ServerSentEvent]]
    error: ErrorFormat
    stream_error: Callable[[str], ServerSentEvent]


WIRE_FORMATS = {
    "/v1/chat/completions": WireFormat(
        provider="openai",
        read=chat_request,
        body=chat_body,
        events=chat_events,
        error=openai_error,
        stream_error=chat_stream_error,
    ),
    "/v1/responses": WireFormat(
        provider="openai",
        read=responses_request,
        body=responses_body,
        events=responses_events,
        error=openai_error,
        stream_error=responses_stream_error,
    ),
    "/v1/messages": WireFormat(
        provider="anthropic",
        read=anthropic_request,
        body=anthropic_body,
        events=anthropic_events,
        error=anthropic_error,
        stream_error=anthropic_stream_error,
    ),
}
COUNT_TOKENS_PATH = "/v1/messages/count_tokens"
MODELS_PATH = "/v1/models"
