"""What every slice stands on and none owns: ids, money, time, errors, settings, the database and its writer, jobs."""

from .clock import Clock, SystemClock, from_unix_ns, unix_ns
from .database import Database
from .engine import insert, insert_new, store_url
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
from .jobs import Job, claim, enqueue, finish, give_up, retry_later
from .money import ZERO, NanoUsd, nano_usd, show_usd, usd
from .packing import as_json, pack, storable, unpack, unpack_json
from .schema import metadata, upgrade
from .settings import Ceilings, ExportTo, Price, Settings, load_settings
from .writer import Op

__all__ = [
    "ZERO",
    "BadInput",
    "BadSettings",
    "Ceilings",
    "Clock",
    "Database",
    "ExportTo",
    "HandrailError",
    "Job",
    "MissingExtra",
    "NanoUsd",
    "NotFound",
    "Op",
    "Price",
    "Settings",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreNewer",
    "StoreOlder",
    "StoreReadOnly",
    "StoreUnreachable",
    "SystemClock",
    "as_json",
    "claim",
    "enqueue",
    "finish",
    "from_unix_ns",
    "give_up",
    "insert",
    "insert_new",
    "load_settings",
    "metadata",
    "nano_usd",
    "new_id",
    "pack",
    "retry_later",
    "show_usd",
    "storable",
    "store_url",
    "unix_ns",
    "unpack",
    "unpack_json",
    "upgrade",
    "usd",
]
