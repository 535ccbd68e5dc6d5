"""Path and query parameters: ids, text filters, and the cursor of a paged list of traces."""

import re
from typing import Annotated

from fastapi import Path, Query

from handrail.traces.store.trace_queries import TraceCursor

IdPath = Annotated[str, Path(pattern="^[0-9a-z_]{1,64}$")]
TraceId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]
SpanId = Annotated[str, Path(pattern="^[0-9a-f]{1,32}$")]
BeforeQuery = Annotated[str | None, Query(pattern="^[0-9a-z_]{1,64}$")]
TextQuery = Annotated[str, Query(max_length=200, pattern="^[^\\x00]*$")]
"""Text without NUL, which Postgres does not accept; empty means not given."""
AfterQuery = Annotated[str, Query(max_length=400)]


def encode_cursor(cursor: TraceCursor) -> str:
    """A cursor as a query parameter."""
    return "~".join(str(part) for part in cursor)


def decode_cursor(text: str) -> TraceCursor | None:
    """The cursor in a query parameter that `encode_cursor` made; None if the text is not such a cursor."""
    parts = text.split("~", 3)
    if len(parts) != 4 or not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts[:2]):
        return None
    if not re.fullmatch("[0-9a-f]{1,64}", parts[2]) or not parts[3].isprintable():
        return None
    return int(parts[0]), int(parts[1]), parts[2], parts[3]
