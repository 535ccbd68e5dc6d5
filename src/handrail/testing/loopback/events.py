"""Server-sent events, and where a fault ends a stream of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MIN_PIECE = 4
_MAX_PIECES = 64


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream."""

    data: Any
    """A JSON value, or a string that is sent as it is."""
    name: str | None = None
    is_content: bool = False
    """Whether it carries a piece of what the model generated."""

    def encode(self) -> bytes:
        """The event as it is sent."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data, separators=(",", ":"))
        name = "" if self.name is None else f"event: {self.name}\n"
        return f"{name}data: {data}\n\n".encode()


def pieces_of(text: str) -> list[str]:
    """A text in at most 64 pieces of at least four characters, as a stream sends it."""
    size = max(_MIN_PIECE, -(-len(text) // _MAX_PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]


def events_until(events: Sequence[ServerSentEvent], after_chunks: int) -> list[ServerSentEvent]:
    """The events up to and including a number of chunks of content, or up to the last chunk if there are fewer."""
    content = [index for index, event in enumerate(events) if event.is_content]
    if not content:
        return list(events[:1])
    if after_chunks == 0:
        return list(events[: content[0]])
    return list(events[: content[min(after_chunks, len(content)) - 1] + 1])
