"""Time-ordered identifiers, so that rows written together lie together and lists come out in order."""

import secrets
import threading
from datetime import datetime

from .clock import unix_ns

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
_lock = threading.Lock()
_last = 0


def new_id(prefix: str, now: datetime) -> str:
    """`prefix_` and 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32, lower case.

    Ids of one process sort in the order they were made, also within a millisecond. The layout and the monotonic rule
    are ULID's (github.com/ulid/spec).
    """
    global _last
    with _lock:
        milliseconds = unix_ns(now) // 1_000_000
        value = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if _last >> _RANDOM_BITS == milliseconds:
            value = _last + 1
        _last = value
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
