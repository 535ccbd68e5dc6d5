"""Column types for what a dataclass holds and a database does not: moments, money, and JSON documents."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, LargeBinary, Text
from sqlalchemy.types import TypeDecorator

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import JsonText, PackedJson, canonical_json, pack, unpack


class Timestamp(TypeDecorator[datetime]):
    """A timezone-aware datetime, stored as whole nanoseconds since 1970 and read back in UTC.

    Not a TIMESTAMP: SQLite has none, and an integer compares and groups alike on both engines.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Raises TypeError for a datetime without a time zone."""
        return None if value is None else unix_ns(value)

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """The moment, in UTC."""
        return None if value is None else from_unix_ns(value)


class Money(TypeDecorator[NanoUsd]):
    """Whole nano-dollars. Costs nothing at run time, since NanoUsd is an int to Python."""

    impl = BigInteger
    cache_ok = True


class Packed(TypeDecorator[Any]):
    """A JSON document, compressed; `handrail.kernel.serialization.pack` says how what JSON lacks is written.

    Compressing takes long enough to keep other writers waiting, so a value may be packed beforehand: a PackedJson is
    stored as it is.
    """

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> bytes | None:
        """None is stored as NULL, and not as a document."""
        if value is None or isinstance(value, PackedJson):
            return value
        return pack(value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> Any:
        """The document, as plain values."""
        return None if value is None else unpack(value)


class Json(TypeDecorator[Any]):
    """A JSON document as text, its keys sorted; for what is small, or read by other programs too.

    A JsonText is stored as it is.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """None is stored as NULL, and not as a document. Raises TypeError for what JSON lacks."""
        if value is None or isinstance(value, JsonText):
            return value
        return canonical_json(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """The document, as plain values."""
        return None if value is None else json.loads(value)
