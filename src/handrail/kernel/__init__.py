"""What every slice stands on and none of them owns: ids, money, time, errors, settings, the database and its writer, jobs."""

from .clock import Clock, SystemClock, from_unix_ns, unix_ns
from .errors import (
    BadInput,
    BadSettings,
    HandrailError,
    MissingExtra,
    NotFound,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNewer,
    StoreOlder,
    StoreReadOnly,
    StoreUnreachable,
)
from .ids import new_id
from .money import ZERO, NanoUsd, nano_usd, show_usd, usd

__all__ = [
    "ZERO",
    "BadInput",
    "BadSettings",
    "Clock",
    "HandrailError",
    "MissingExtra",
    "NanoUsd",
    "NotFound",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreNewer",
    "StoreOlder",
    "StoreReadOnly",
    "StoreUnreachable",
    "SystemClock",
    "from_unix_ns",
    "nano_usd",
    "new_id",
    "show_usd",
    "unix_ns",
    "usd",
]
