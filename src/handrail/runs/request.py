"""A run's request: its input, user and tenant. The fallback, the route and the deps factory receive it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_ai.messages import TextContent, UserContent

from handrail.kernel.errors import BadInput

RunInput: TypeAlias = str | Sequence[UserContent] | None
"""The user's message: text, or Pydantic AI's user contents. None continues a conversation without a new message."""

MAX_INPUT_BYTES = 1_000_000
"""Longer text is rejected before anything is stored: it exceeds any model's context, and is stored several times."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One request to one agent."""

    run_id: str
    agent: str
    """The agent's name."""
    input: RunInput
    """As it was passed to `run`; the property `text` has only its text."""
    user: str
    """Whom the agent runs for."""
    tenant: str
    """The tenant that the run belongs to."""
    conversation_id: str
    """The run's own id if it continues no conversation."""
    deps: Any = None
    """The run's dependencies; None while the factory that makes them is called."""

    @property
    def text(self) -> str:
        """The input's text parts, joined by blank lines, without images and files."""
        if self.input is None or isinstance(self.input, str):
            return self.input or ""
        return "\n\n".join(_texts(self.input))


def validate_input(value: RunInput, *, may_be_empty: bool) -> RunInput:
    """Returns `value` if an agent can be run with it.

    Args:
        value: A run's input.
        may_be_empty: Whether the input may be empty, as in a run that continues a conversation.

    Raises:
        BadInput: It is empty, too long, not valid text, or of another type.
    """
    if not _is_input(value):
        raise BadInput(f"input: {type(value).__name__} is neither text nor a list of contents; decode or convert it")
    parts = [value] if isinstance(value, str) else list(value or ())
    texts = _texts(parts)
    if not may_be_empty and not any(text.strip() for text in texts) and len(texts) == len(parts):
        raise BadInput("input: it is empty; pass the user's message")
    size = 0
    for text in texts:
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:
            character = text[error.start]
            raise BadInput(
                f"input: not valid text at character {error.start} ({character!r}); decode it with the right encoding"
            ) from None
    if size > MAX_INPUT_BYTES:
        raise BadInput(
            f"input: {size:,} bytes of text, the limit is {MAX_INPUT_BYTES:,}; shorten it, or pass it as a document"
        )
    return value


def validate_name(field: str, name: str) -> str:
    """Returns `name` if it can name a user, a tenant or a conversation: 1 to 200 printable characters.

    Args:
        field: The field that holds the name, for the error message.
        name: The name.

    Raises:
        BadInput: It is empty, too long, or has characters that cannot be printed.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise BadInput(f"{field}: {str(name)[:50]!r} is not a valid name; use 1 to 200 printable characters")
    return name


def _texts(parts: Sequence[UserContent]) -> list[str]:
    contents = (part.content if isinstance(part, TextContent) else part for part in parts)
    return [content for content in contents if isinstance(content, str)]


def _is_input(value: object) -> bool:
    return value is None or (isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview))
