"""Documents in the store: JSON, compressed, and never a reason for a run to end."""

import json
import zlib
from typing import Any

from pydantic_core import to_json, to_jsonable_python

# Level 1 costs a fifth of the default's time for a tenth more bytes; on a short text it saves nothing at all.
_LEVEL = 1
_SHORT = 512
_ZLIB = b"x"
"""How zlib's output begins, and JSON never does."""


class PackedJson(bytes):
    """A document that `pack` has written."""

    __slots__ = ()


class JsonText(str):
    """A document that `canonical_json` has written."""

    __slots__ = ()


def as_json(value: Any) -> bytes:
    """The value as JSON, whatever it is.

    Bytes become base 64, objects that JSON has no form for their text, halves of surrogate pairs question marks.
    """
    try:
        return to_json(value, bytes_mode="base64", fallback=str)
    except ValueError:
        return json.dumps(_plain(value), ensure_ascii=False).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    try:
        return to_jsonable_python(value, bytes_mode="base64", fallback=repr, serialize_unknown=True)
    except ValueError:
        # A value that contains itself.
        return repr(value)


def canonical_json(value: Any) -> JsonText:
    """The value as JSON in ASCII with sorted keys: equal documents have equal texts, and every store can hold them.

    Lone surrogates are escaped, and non-finite floats written as Python's json module reads them, so nothing is lost.

    Raises:
        TypeError: For a value that JSON has no form for.
    """
    return JsonText(json.dumps(value, sort_keys=True, separators=(",", ":")))


def escape_unstorable(text: str) -> str:
    r"""The text as every store can hold it: a lone surrogate as \udc80, and NUL, which Postgres refuses, as \x00."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def pack(value: Any) -> PackedJson:
    """The value as JSON, compressed where it is long; `as_json` says how what JSON lacks is written."""
    body = as_json(value)
    return PackedJson(body if len(body) < _SHORT else zlib.compress(body, _LEVEL))


def unpack(body: bytes) -> Any:
    """What `pack` was given, as plain values."""
    return json.loads(unpack_json(body))


def unpack_json(body: bytes) -> bytes:
    """What `pack` was given, as JSON."""
    return zlib.decompress(body) if body.startswith(_ZLIB) else body
