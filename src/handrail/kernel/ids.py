"""Time-ordered identifiers, so that rows written together lie together and lists come out in order."""

import secrets
from datetime import datetime

from .clock import unix_ns

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str, now: datetime) -> str:
    """`prefix_` and 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32.

    Ids sort by creation time to the millisecond. The layout is ULID's (github.com/ulid/spec), in lower case.
    """
    value = (unix_ns(now) // 1_000_000) << 80 | secrets.randbits(80)
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
