"""Converts attribute values from other programs: each function returns None for a value it cannot convert.

Senders write numbers as strings, dollars as floats and timestamps as quoted text. A value that cannot be converted, or
that no real span has, stays among the attributes instead of failing the span.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from handrail.kernel.clock import unix_ns
from handrail.kernel.money import NanoUsd, nano_usd

MAX_NAME_CHARS = 200
"""Characters of a field that identifies something; longer values are truncated."""

# A span with more than this is its sender's mistake; sums of such numbers would not fit the store's 64-bit integers.
_MAX_COUNT = 10**15
_MAX_USD = Decimal(1_000_000)
_MAX_SECONDS = 1_000_000
_MAX_ATTEMPTS = 1_000_000
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def truncate(text: str, length: int) -> str:
    """The text, or its beginning with an ellipsis if it is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def replace_unstorable(text: str) -> str:
    """The text without what a database rejects: Postgres null characters, both engines half a surrogate pair."""
    return _NOT_STORABLE.sub("\ufffd", text)


def as_name(value: Any) -> str | None:
    """A text or number as an identifier that fits a column."""
    if isinstance(value, str):
        return replace_unstorable(truncate(value, MAX_NAME_CHARS)) or None
    return str(value) if isinstance(value, int | float) else None


def as_list(value: Any) -> list[Any]:
    """A list as it is, a single value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def as_count(value: Any) -> int | None:
    """A number of tokens or nano-dollars, from a whole number, also as a string or a float."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else None


def as_attempt(value: Any) -> int | None:
    """The number of an attempt, from 1."""
    number = as_count(value)
    return number if number is not None and 1 <= number <= _MAX_ATTEMPTS else None


def as_nano_usd(value: Any) -> NanoUsd | None:
    """Nano-dollars, from an amount in US dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return nano_usd(amount) if amount.is_finite() and 0 <= amount <= _MAX_USD else None


def as_duration_ns(value: Any) -> int | None:
    """Nanoseconds, from a duration in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        return None
    return round(value * 1e9)


def as_time_ns(value: Any) -> int | None:
    """Nanoseconds since 1970, from an ISO 8601 timestamp, in UTC if it has no zone; Langfuse's has JSON's quotes."""
    try:
        timestamp = datetime.fromisoformat(str(value).strip('"'))
    except ValueError:
        return None
    return unix_ns(timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC))
