"""A request as the model reads it: the same value for every wire format, with its tokens counted."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

FRAME_TOKENS = 4
"""Tokens around each message, tool and output schema, besides its text."""
IMAGE_TOKENS = 1000
"""Tokens of an image, whatever its size."""

CacheLifetime = Literal["5m", "1h"]

_IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})
# Keys whose values are names in the protocol, not text for the model.
_PROTOCOL_KEYS = frozenset(
    {
        "cache_control",
        "call_id",
        "encrypted_content",
        "id",
        "phase",
        "role",
        "signature",
        "status",
        "tool_call_id",
        "tool_use_id",
        "type",
    }
)


class BadPrompt(Exception):
    """A request that the provider turns down with status 400; it is free."""


@dataclass(frozen=True)
class PromptSegment:
    """One tool, message or block of a message."""

    text: str
    """What the model reads of it."""
    images: int = 0
    """How many images it has."""
    cached_for: CacheLifetime | None = None
    """Set if the request asks for a cache entry of everything up to and including this segment."""


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """What a provider takes from a request's body."""

    model: str
    setup: tuple[PromptSegment, ...] = ()
    """The output schema, the tools and the instructions."""
    messages: tuple[PromptSegment, ...] = ()
    max_output_tokens: int | None
    """The limit of one choice's output, reasoning included."""
    choices: int = 1
    stream: bool = False
    include_usage: bool = True
    """Whether a stream reports usage."""
    service_tier: str = "default"
    """The tier that the request is served at."""
    speed: Literal["standard", "fast"] = "standard"
    """Anthropic's inference speed."""
    searches_web: bool = False
    """Whether the request turns the provider's web search on."""
    previous_response: str | None = None
    """The id of an earlier response, which the model reads again with all that came before it."""
    conversation: str | None = None
    """The id of a conversation kept at the provider, which the model reads again."""
    keep: bool = False
    """Whether the response is kept for later requests."""

    @property
    def segments(self) -> tuple[PromptSegment, ...]:
        """All that the model reads, in order."""
        return self.setup + self.messages


def segment_of(value: Any, cached_for: CacheLifetime | None = None) -> PromptSegment:
    """A JSON value as a model reads it: its strings without the protocol's own names, one a line, and its images."""
    return PromptSegment("\n".join(_strings(value)), _count_images(value), cached_for)


def compact_json(value: Any) -> str:
    """A value as JSON without spaces, as schemas and arguments are counted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict) and not _is_image(value):
        for key, item in value.items():
            if key == "input" and isinstance(item, dict):
                yield compact_json(item)
            elif key not in _PROTOCOL_KEYS:
                yield from _strings(item)


def _is_image(value: dict[str, Any]) -> bool:
    return value.get("type") in _IMAGE_TYPES


def _count_images(value: Any) -> int:
    if isinstance(value, list):
        return sum(_count_images(item) for item in value)
    if isinstance(value, dict):
        return 1 if _is_image(value) else sum(_count_images(item) for item in value.values())
    return 0


def count_text(text: str, bytes_per_token: int) -> int:
    """The tokens of a text: one for each `bytes_per_token` bytes of UTF-8, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // bytes_per_token)


def count_segments(segments: tuple[PromptSegment, ...], bytes_per_token: int) -> int:
    """The tokens of a prompt or of a part of it."""
    return sum(
        count_text(segment.text, bytes_per_token) + segment.images * IMAGE_TOKENS + FRAME_TOKENS for segment in segments
    )


def field_of(body: dict[str, Any], name: str, kind: type) -> Any:
    """A required field of a request's body.

    Raises:
        BadPrompt: The field is missing or of another type.
    """
    value = body.get(name)
    if not isinstance(value, kind):
        raise BadPrompt(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def limit_of(body: dict[str, Any], *names: str) -> int | None:
    """The highest of a request's limits on output, as a provider that wants to sell tokens reads two that differ.

    Raises:
        BadPrompt: A limit is no positive whole number.
    """
    limits = [body[name] for name in names if body.get(name) is not None]
    if any(not isinstance(limit, int) or limit < 1 for limit in limits):
        raise BadPrompt(f"{' and '.join(names)} must be positive whole numbers")
    return max(limits, default=None)
