"""Text of users and models made fit for a page: what a browser or a reader would obey is shown instead."""

from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

# Control characters, and the marks that turn the direction of text or join what does not belong together.
_OBEYED = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"},
    **dict.fromkeys((*range(0x7F, 0xA0), 0xAD), "\ufffd"),
    **{
        code: f"[U+{code:04X}]"
        for code in (0x061C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF)
    },
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def shown(found: Any) -> Any:
    """`found` as a template may print it: markup of our own as it is, everything else as harmless text."""
    return found if isinstance(found, Markup) else str(found).translate(_OBEYED) if found is not None else ""


def excerpt(text: Any, length: int) -> str:
    """The text on one line, of at most `length` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def show_duration(duration: timedelta | int | float | None) -> str:
    """A timedelta or nanoseconds in the unit that suits it."""
    if duration is None:
        return ""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration / 1e9
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.0095 or seconds < 1e-5 else f"{seconds * 1e3:.2g} ms"


def show_time(moment: datetime) -> Markup:
    """UTC to the second; the page's script turns it into the reader's own time."""
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}Z">{} UTC</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%S"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )
