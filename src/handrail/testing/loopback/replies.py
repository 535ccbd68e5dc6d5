"""What the provider is to answer, and how it is to fail: values that a test gives to `LoopbackProvider.reply`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ReplyToolCall:
    """A call of one of the request's tools."""

    name: str
    """The tool's name; nothing checks that the request offers it."""
    arguments: Mapping[str, Any] | str
    """The arguments, or a string that is sent as it is, such as broken JSON."""


@dataclass(frozen=True)
class HttpError:
    """Answers with an error status. A 4xx other than 408 and 499 is free, every other status is billed in full."""

    status: int
    """The HTTP status."""
    body: Any = None
    """The JSON body; the provider's own format for errors by default."""
    headers: Mapping[str, str] | None = None
    """More headers, such as `retry-after`."""


@dataclass(frozen=True)
class Hang:
    """Works on the request, bills it in full, and answers nothing until the client leaves or the provider closes."""


@dataclass(frozen=True)
class Disconnect:
    """Closes the connection in the middle of a stream, or without an answer if the request asks for no stream.

    A stream is billed up to there, a request without one in full.
    """

    after_chunks: int = 0
    """How many chunks of content are sent first."""


@dataclass(frozen=True)
class EndsWithoutFinish:
    """Ends a stream properly, but without finish reason, usage and terminator; it is billed up to there.

    The answer to a request that asks for no stream is whole.
    """

    after_chunks: int = 0
    """How many chunks of content are sent first."""


@dataclass(frozen=True)
class StreamError:
    """Sends an error event in the middle of a stream, which is billed up to there.

    A request that asks for no stream is answered with status 500 and billed in full.
    """

    after_chunks: int = 0
    """How many chunks of content are sent first."""
    message: str = "The server had an error while processing your request."
    """The message of the error."""


@dataclass(frozen=True)
class HtmlPage:
    """Answers with a page, as a proxy in between may. It is billed like `HttpError` of the same status."""

    status: int = 200
    """The HTTP status."""


@dataclass(frozen=True)
class RawBody:
    """Answers with a body that is sent as it is. It is billed like `HttpError` of the same status."""

    content: Any
    """Bytes, or a value that is sent as JSON, such as `{"choices": []}`."""
    status: int = 200
    """The HTTP status."""
    content_type: str = "application/json"
    """The content type."""


ReplyFault = HttpError | Hang | Disconnect | EndsWithoutFinish | StreamError | HtmlPage | RawBody


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the model. The request's limits apply to it: a longer answer is cut, and finishes with `length`."""

    text: str = ""
    """The text; with `finish="refusal"`, the refusal's, which Anthropic sends as the explanation in `stop_details`."""
    thinking: str = ""
    """The reasoning that the model shows."""
    tool_calls: Sequence[ReplyToolCall] = ()
    """Calls of tools, after the text."""
    finish: Literal["stop", "length", "content_filter", "refusal", "error"] | None = None
    """Why the answer ends. By default `stop`, or `length` if a limit cut it; the wire formats say "tool calls" instead
    of `stop` if there are any. Anthropic has no `content_filter`, which ends with its stop reason `refusal` after the
    text, and no `error`, which it sends as `StreamError` does."""
    output_tokens: int | None = None
    """Output tokens of one choice, without hidden reasoning; by default those of the text, reasoning and calls."""
    hidden_reasoning_tokens: int = 0
    """Output tokens of reasoning that is billed but not shown; it comes first, and the request's limit includes it."""
    cached_tokens: int | None = None
    """Input tokens read from the cache; by default what the provider's cache has."""
    cache_write_tokens: int | None = None
    """Input tokens written to the cache, those kept for an hour included; by default what the request asks for."""
    cache_write_1h_tokens: int | None = None
    """Those of them that are kept for an hour."""
    model: str | None = None
    """The model that the response names; by default the requested one, which is also what is billed."""
    service_tier: str | None = None
    """The tier that the request was served at; by default the requested one."""
    web_searches: int = 0
    """Searches of the provider's own web search; none if the request does not turn it on."""
    web_search_tokens: int = 0
    """Input tokens that these searches add in all."""
    reported_cost: float | None = None
    """Dollars that the response reports as `usage.cost`, as OpenRouter's do; the bill does not depend on it."""
    usage: Mapping[str, Any] | Literal["counted"] | None = "counted"
    """The usage as it is sent, whatever is billed; None sends none."""
    delay_s: float = 0.0
    """Seconds before anything is sent."""
    chunk_delay_s: float = 0.0
    """Seconds before each chunk of content in a stream; the events that open the answer are sent at once, so this is
    also how long a client waits for hidden reasoning."""
    fault: ReplyFault | None = None
    """How the answer fails."""


def is_free_status(status: int) -> bool:
    """Whether a response with this status means that nothing was worked on: a client error, but not a timeout."""
    return 400 <= status < 500 and status not in (408, 499)


def failing_status(fault: ReplyFault | None) -> int | None:
    """The HTTP status that a fault gives the response, or None if it gives none."""
    return fault.status if isinstance(fault, HttpError | HtmlPage | RawBody) else None
