"""What a run was asked: the input and for whom. The fallback, the route and the deps factory see exactly this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_ai.messages import TextContent, UserContent

from handrail.kernel.errors import BadInput

RunInput: TypeAlias = str | Sequence[UserContent] | None

MAX_INPUT_BYTES = 1_000_000
"""Text above this is refused before anything is stored: it fits no model, and would be paid for by the megabyte."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One question to one agent. `deps` are the run's own, once the factory made them."""

    run_id: str
    agent: str
    input: RunInput
    user: str
    tenant: str
    conversation_id: str
    deps: Any = None

    @property
    def text(self) -> str:
        """The input's text parts, joined by blank lines; images and files left out."""
        if self.input is None or isinstance(self.input, str):
            return self.input or ""
        return "\n\n".join(_texts(self.input))


def checked_input(found: RunInput, *, may_be_empty: bool) -> RunInput:
    """`found`, or BadInput that says what is wrong with it: empty, too long, or not valid text.

    Only a run that continues a conversation may have no input of its own.
    """
    if not _is_input(found):
        raise BadInput(f"input: {type(found).__name__} is neither text nor a list of contents; decode or convert it")
    parts = [found] if isinstance(found, str) else list(found or ())
    texts = _texts(parts)
    if not may_be_empty and not any(text.strip() for text in texts) and len(texts) == len(parts):
        raise BadInput("input: it is empty; pass the user's message")
    size = 0
    for text in texts:
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:
            raise BadInput(
                f"input: not valid text at character {error.start} ({text[error.start]!r}); decode it anew"
            ) from None
    if size > MAX_INPUT_BYTES:
        raise BadInput(
            f"input: {size:,} bytes of text, the limit is {MAX_INPUT_BYTES:,}; cut it, or pass it as a document"
        )
    return found


def _texts(parts: Sequence[UserContent]) -> list[str]:
    said = (part.content if isinstance(part, TextContent) else part for part in parts)
    return [text for text in said if isinstance(text, str)]


def _is_input(found: object) -> bool:
    return found is None or (isinstance(found, Sequence) and not isinstance(found, bytes | bytearray | memoryview))


def checked_name(what: str, found: str) -> str:
    """`found` as a user's, tenant's or conversation's name: 1 to 200 printable characters. Raises BadInput."""
    if not isinstance(found, str) or not found.strip() or len(found) > 200 or not found.isprintable():
        raise BadInput(f"{what}: {str(found)[:50]!r} is not a name of 1 to 200 printable characters")
    return found
