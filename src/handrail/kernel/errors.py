"""The error tree, each error named for what its caller does next.

    HandrailError
    ├── BadInput            change what you passed in
    ├── BadSettings         mend handrail.toml or the environment
    ├── NotFound            name something that exists
    ├── MissingExtra        install the extra it names
    └── StoreError          the store did not do what was asked; nothing of the call was written
        ├── StoreBusy       try again
        ├── StoreFull       make room on the disk
        ├── StoreReadOnly   make the file writable, or point at another
        ├── StoreDamaged    restore a backup
        ├── StoreNewer      upgrade Handrail
        ├── StoreOlder      run `handrail db upgrade`
        └── StoreUnreachable  start the database, or correct its address

Every error carries a stable `code` for programs and a message that says what, where and what to do for people. A run's
own expected faults are values in its outcome, not exceptions of this tree.
"""

from typing import ClassVar


class HandrailError(Exception):
    """Root of everything Handrail raises on purpose."""

    code: ClassVar[str] = "handrail_error"


class BadInput(HandrailError, ValueError):
    code: ClassVar[str] = "bad_input"


class BadSettings(HandrailError):
    code: ClassVar[str] = "bad_settings"


class NotFound(HandrailError, LookupError):
    code: ClassVar[str] = "not_found"


class MissingExtra(HandrailError, ImportError):
    """A feature needs packages that the core does not install."""

    code: ClassVar[str] = "missing_extra"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed: pip install 'handrail[{extra}]'")
        self.extra = extra


class StoreError(HandrailError):
    code: ClassVar[str] = "store_error"


class StoreBusy(StoreError):
    code: ClassVar[str] = "store_busy"


class StoreFull(StoreError):
    code: ClassVar[str] = "store_full"


class StoreReadOnly(StoreError):
    code: ClassVar[str] = "store_read_only"


class StoreDamaged(StoreError):
    code: ClassVar[str] = "store_damaged"


class StoreNewer(StoreError):
    code: ClassVar[str] = "store_newer"


class StoreOlder(StoreError):
    code: ClassVar[str] = "store_older"


class StoreUnreachable(StoreError):
    code: ClassVar[str] = "store_unreachable"
