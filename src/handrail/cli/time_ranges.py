"""How far back a question goes, and the traces that it is answered from."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

import typer
from sqlalchemy import Connection

from handrail.kernel.errors import BadInput, NotFound
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace

Since = Annotated[
    str, typer.Option(metavar="AGE|DATE", help="How far back: 90m, 24h, 7d, 4w, or a date of UTC such as 2026-01-31.")
]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
MOST_SPANS = 5_000
"""A trace of more spans than this is left out where many are gone through."""


class Found(Protocol):
    """A trace as a list of them has it."""

    @property
    def trace_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


def moment(since: str, now: datetime) -> datetime:
    """When that was, from 1970 to now. Raises BadInput for what is neither an age nor a date."""
    age = re.fullmatch(r"(\d{1,5})([mhdw])", since, re.ASCII)
    try:
        found = now - timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else datetime.fromisoformat(since)
    except OverflowError:
        return _FIRST
    except ValueError:
        raise BadInput(
            f"--since {since!r} is neither an age such as 90m, 24h, 7d or 4w nor a date such as 2026-01-31"
        ) from None
    return min(max(found if found.tzinfo else found.replace(tzinfo=UTC), _FIRST), now)


def load_each(conn: Connection, found: Iterable[Found]) -> list[Sequence[Span]]:
    """The spans of each of these traces, as its tenant sees it; those pruned meanwhile or very long are left out."""
    loaded: list[Sequence[Span]] = []
    for each in found:
        try:
            summary, spans = load_trace(conn, each.trace_id, each.tenant)
        except NotFound:
            continue
        if summary.spans <= MOST_SPANS:
            loaded.append(spans)
    return loaded


def spread(found: Sequence[Found], most: int) -> Sequence[Found]:
    """At most `most` of them, evenly from the first to the last."""
    return found[:: -(-len(found) // most) or 1]
