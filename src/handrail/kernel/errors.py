"""The error tree, each error named for what its caller does next.

    HandrailError
    ├── BadInput            change what you passed in
    ├── BadSettings         correct handrail.toml or the environment
    ├── NotFound            name something that exists
    ├── MissingExtra        install the extra it names
    └── StoreError          the store failed; nothing of the call was written
        ├── StoreBusy       try again
        ├── StoreFull       make room on the disk
        ├── StoreReadOnly   make the file writable, or point at another
        ├── StoreDamaged    restore a backup
        ├── StoreNewer      upgrade Handrail, or name another store
        ├── StoreOlder      run `handrail db upgrade`
        └── StoreUnreachable  start the database, or correct its address

Every error carries a stable `code` for programs and a message that says what, where and what to do for people. A run's
own expected faults are values in its outcome, not exceptions of this tree.
"""

from typing import ClassVar


class HandrailError(Exception):
    """The root of all errors that Handrail raises."""

    code: ClassVar[str] = "handrail_error"


class BadInput(HandrailError, ValueError):
    """An argument is not valid; the message says which, and what is."""

    code: ClassVar[str] = "bad_input"


class BadSettings(HandrailError):
    """The settings are not valid; the message says where, and what is."""

    code: ClassVar[str] = "bad_settings"


class NotFound(HandrailError, LookupError):
    """What was named does not exist."""

    code: ClassVar[str] = "not_found"


class MissingExtra(HandrailError, ImportError):
    """A feature needs packages that the core does not install."""

    code: ClassVar[str] = "missing_extra"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed: pip install 'handrail[{extra}]'")
        self.extra = extra


class StoreError(HandrailError):
    """The store failed; nothing of the call was written."""

    code: ClassVar[str] = "store_error"


class StoreBusy(StoreError):
    """Another process is writing."""

    code: ClassVar[str] = "store_busy"


class StoreFull(StoreError):
    """The disk is full."""

    code: ClassVar[str] = "store_full"


class StoreReadOnly(StoreError):
    """The store takes no writes."""

    code: ClassVar[str] = "store_read_only"


class StoreDamaged(StoreError):
    """The store's data is damaged."""

    code: ClassVar[str] = "store_damaged"


class StoreNewer(StoreError):
    """The tables are of a version that this Handrail does not know."""

    code: ClassVar[str] = "store_newer"


class StoreOlder(StoreError):
    """The tables are missing, or of an earlier version."""

    code: ClassVar[str] = "store_older"


class StoreUnreachable(StoreError):
    """The store does not answer, or its file cannot be opened."""

    code: ClassVar[str] = "store_unreachable"
