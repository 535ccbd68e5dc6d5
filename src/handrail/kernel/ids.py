"""Time-ordered identifiers: rows written together are stored together, and sorting by id sorts by time."""

import secrets
import threading
from datetime import datetime

from .clock import unix_ns
from .forks import begin_anew_when_forked

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80


class _Sequence:
    """The last value that this process made."""

    def __init__(self) -> None:
        self.begin_anew()
        begin_anew_when_forked(self)

    def begin_anew(self) -> None:
        # A child that went on counting where its parent is would make the same ids.
        self.lock = threading.Lock()
        self.last = 0


_sequence = _Sequence()


def new_id(prefix: str, now: datetime) -> str:
    """A new unique id.

    It is `prefix_` and 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32, lower case.
    The ids of one process sort in the order they were made, also within a millisecond. The layout and the monotonic
    rule are ULID's (github.com/ulid/spec).

    Args:
        prefix: What the id is of, such as `run`.
        now: The time.
    """
    with _sequence.lock:
        milliseconds = unix_ns(now) // 1_000_000
        value = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if _sequence.last >> _RANDOM_BITS == milliseconds:
            value = _sequence.last + 1
        _sequence.last = value
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
