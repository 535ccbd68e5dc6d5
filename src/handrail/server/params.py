"""What stands in this site's addresses: ids, words to look for, and where a page of a list ended."""

import re
from typing import Annotated

from fastapi import Path, Query

from handrail.traces.store.queries import Place

Id = Annotated[str, Path(pattern="^[0-9a-z_]{1,64}$")]
TraceId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]
SpanId = Annotated[str, Path(pattern="^[0-9a-f]{1,32}$")]
Before = Annotated[str | None, Query(pattern="^[0-9a-z_]{1,64}$")]
Word = Annotated[str, Query(max_length=200, pattern="^[^\\x00]*$")]
"""Text without NUL, which Postgres does not take; empty is the same as not given."""
After = Annotated[str, Query(max_length=400)]


def show_place(place: Place) -> str:
    """The place as text."""
    return "~".join(str(part) for part in place)


def read_place(text: str) -> Place | None:
    """The place that `show_place` wrote; None where it is none."""
    parts = text.split("~", 3)
    if len(parts) != 4 or not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts[:2]):
        return None
    if not re.fullmatch("[0-9a-f]{1,64}", parts[2]) or not parts[3].isprintable():
        return None
    return int(parts[0]), int(parts[1]), parts[2], parts[3]
