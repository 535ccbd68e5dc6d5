"""Text from users and models made safe to print, and values and durations as people read them."""

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pydantic_core import to_jsonable_python

# What a terminal, a browser or a reader's eye obeys instead of showing it: control characters, the marks that change
# the direction of text, and invisible characters that join what does not belong together.
_UNSAFE = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"},
    **dict.fromkeys((*range(0x7F, 0xA0), 0xAD), "\ufffd"),
    **{
        code: f"[U+{code:04X}]"
        for code in (0x061C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF)
    },
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def sanitize(text: str) -> str:
    """The text with every character that a terminal or browser would obey replaced by a visible one.

    Tabs and line breaks stay; a Windows line break becomes a plain one.
    """
    return text.replace("\r\n", "\n").translate(_UNSAFE)


def shorten(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def format_json(value: Any) -> str:
    """The value as JSON on one line; what JSON has no form for becomes text. The result is not sanitized."""
    # Half a surrogate pair in a name, and bytes that are not UTF-8, raise.
    with suppress(ValueError):
        value = to_jsonable_python(value, fallback=str)
    return json.dumps(value, ensure_ascii=False, default=str)


def format_duration(duration: timedelta | float | None) -> str:
    """A duration in the unit that suits it, from days down to fractions of a millisecond.

    Args:
        duration: A timedelta, or a number of nanoseconds; None gives the empty string.
    """
    if duration is None:
        return ""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration / 1e9
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.0095 or seconds < 1e-5 else f"{seconds * 1e3:.2g} ms"
