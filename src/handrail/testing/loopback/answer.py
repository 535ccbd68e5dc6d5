"""The model's answer to a request: a reply with the request's limit applied, and the tokens of both."""

from dataclasses import dataclass
from typing import Any, Literal

from .prompt import ProviderRequest, compact_json, count_text
from .replies import Reply, ReplyToolCall


@dataclass(frozen=True)
class ModelAnswer:
    """One choice as the model generated it."""

    text: str
    thinking: str
    tool_calls: tuple[ReplyToolCall, ...]
    """Their arguments are what was generated of them, as text, if the limit cut them."""
    finish: Literal["stop", "length", "content_filter", "refusal", "error"]
    visible_tokens: int
    hidden_tokens: int

    @property
    def output_tokens(self) -> int:
        """All output tokens of one choice."""
        return self.visible_tokens + self.hidden_tokens


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """The true tokens of one request, over all of its choices."""

    input_tokens: int
    """All input tokens, those read from and written to the cache included."""
    cache_read_tokens: int
    cache_write_tokens: int
    """Those kept for an hour included."""
    cache_write_1h_tokens: int
    output_tokens: int
    """All output tokens, reasoning included."""
    reasoning_tokens: int
    """Reasoning, shown or hidden."""
    web_searches: int
    search_tokens: int
    """The input tokens that searches added; `input_tokens` includes them."""

    @property
    def cache_write_5m_tokens(self) -> int:
        """The input tokens written to the cache for five minutes."""
        return self.cache_write_tokens - self.cache_write_1h_tokens

    @property
    def uncached_tokens(self) -> int:
        """The input tokens neither read from nor written to the cache."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """Everything that a wire format needs for a response."""

    id: str
    """Without the format's prefix."""
    created: int
    """Seconds since 1970."""
    provider_id: str
    """The provider that plays, by its id in genai-prices' table."""
    request: ProviderRequest
    reply: Reply
    answer: ModelAnswer
    usage: TokenUsage
    service_tier: str

    @property
    def model(self) -> str:
        """The model that the response names."""
        return self.reply.model or self.request.model


def arguments_text(call: ReplyToolCall) -> str:
    """A call's arguments as the model generates them."""
    return call.arguments if isinstance(call.arguments, str) else compact_json(dict(call.arguments))


def answer_to(request: ProviderRequest, reply: Reply, bytes_per_token: int) -> ModelAnswer:
    """The answer within the request's limit. Hidden reasoning is generated first, then reasoning, text and calls."""
    parts = [reply.thinking, reply.text]
    parts += [text for call in reply.tool_calls for text in (call.name, arguments_text(call))]
    counted = sum(count_text(part, bytes_per_token) for part in parts)
    visible = counted if reply.output_tokens is None else reply.output_tokens
    limit = request.max_output_tokens
    if limit is None or visible + reply.hidden_reasoning_tokens <= limit:
        calls = tuple(reply.tool_calls)
        finish = reply.finish or "stop"
        return ModelAnswer(reply.text, reply.thinking, calls, finish, visible, reply.hidden_reasoning_tokens)
    hidden = min(reply.hidden_reasoning_tokens, limit)
    room = limit - hidden
    # With a given count of tokens, the same share of the content is generated.
    budget = _Budget(counted * room // visible if visible else 0, bytes_per_token)
    thinking, text = budget.take(reply.thinking), budget.take(reply.text)
    cut = tuple(
        ReplyToolCall(call.name, budget.take(arguments_text(call)))
        for call in reply.tool_calls
        if budget.take(call.name) == call.name
    )
    return ModelAnswer(text, thinking, cut, reply.finish or "length", min(room, visible), hidden)


class _Budget:
    """Tokens that are left for content."""

    def __init__(self, tokens: int, bytes_per_token: int) -> None:
        self.left = tokens
        self._bytes_per_token = bytes_per_token

    def take(self, text: str) -> str:
        """As much of a text as there are tokens for."""
        taken = min(self.left, count_text(text, self._bytes_per_token))
        self.left -= taken
        return text.encode("utf-8", "surrogatepass")[: taken * self._bytes_per_token].decode("utf-8", "ignore")


def given_usage(result: ModelResult, counted: dict[str, Any]) -> dict[str, Any] | None:
    """The usage to send: what the reply overrides it with, or else the counted one."""
    usage = result.reply.usage
    if usage == "counted":
        return counted
    return None if usage is None else dict(usage)
