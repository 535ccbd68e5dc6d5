"""Time-ordered identifiers: rows written together are stored together, and sorting by id sorts by time."""

import secrets
import threading
from datetime import datetime

from .clock import unix_ns

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
_lock = threading.Lock()
_last = 0


def new_id(prefix: str, now: datetime) -> str:
    """A new unique id.

    It is `prefix_` and 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32, lower case.
    The ids of one process sort in the order they were made, also within a millisecond. The layout and the monotonic
    rule are ULID's (github.com/ulid/spec).

    Args:
        prefix: What the id is of, such as `run`.
        now: The time.
    """
    global _last
    with _lock:
        milliseconds = unix_ns(now) // 1_000_000
        value = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if _last >> _RANDOM_BITS == milliseconds:
            value = _last + 1
        _last = value
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
