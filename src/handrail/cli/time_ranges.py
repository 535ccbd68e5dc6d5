"""The option `--since`: how far back a report looks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from handrail.kernel.errors import BadInput

Since = Annotated[
    str, typer.Option(metavar="AGE|DATE", help="Since when: 90m, 24h, 7d or 4w ago, or a UTC date such as 2026-01-31.")
]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def parse_since(since: str, now: datetime) -> datetime:
    """The start of a range, as an option names it.

    Args:
        since: An age or a date.
        now: The current time, which ages are subtracted from and which is the latest possible start.

    Raises:
        BadInput: It is neither an age nor a date.
    """
    age = re.fullmatch(r"(\d{1,5})([mhdw])", since, re.ASCII)
    try:
        start = now - timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else datetime.fromisoformat(since)
    except OverflowError:
        return _FIRST
    except ValueError:
        raise BadInput(
            f"--since {since!r} is neither an age such as 90m, 24h, 7d or 4w, nor a date such as 2026-01-31"
        ) from None
    return min(max(start if start.tzinfo else start.replace(tzinfo=UTC), _FIRST), now)
