"""Text of users and models made fit for a page: what a browser or a reader would obey is shown instead."""

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from handrail.kernel.text import sanitize


def shown(found: Any) -> Any:
    """`found` as a template may print it: markup of our own as it is, everything else as harmless text."""
    return found if isinstance(found, Markup) else sanitize(str(found)) if found is not None else ""


def show_time(moment: datetime) -> Markup:
    """UTC to the second; the page's script turns it into the reader's own time."""
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}Z">{} UTC</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%S"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )
