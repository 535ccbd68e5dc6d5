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


def as_json(found: Any) -> bytes:
    """`found` as JSON: bytes as base 64, objects it does not know by their text, half characters as question marks."""
    try:
        return to_json(found, bytes_mode="base64", fallback=str)
    except ValueError:
        return json.dumps(_plain(found), ensure_ascii=False).encode("utf-8", "replace")


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    try:
        return to_jsonable_python(found, bytes_mode="base64", fallback=repr, serialize_unknown=True)
    except ValueError:
        # A value that holds itself.
        return repr(found)


def storable(text: str) -> str:
    r"""`text` as every store can hold it: half a surrogate pair as \udc80, NUL, which Postgres refuses, as \x00."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def pack(found: Any) -> bytes:
    """`found` as JSON, compressed where it is long; `as_json` says how what JSON lacks is written."""
    body = as_json(found)
    return body if len(body) < _SHORT else zlib.compress(body, _LEVEL)


def unpack(body: bytes) -> Any:
    """What `pack` was given, as plain values."""
    return json.loads(unpack_json(body))


def unpack_json(body: bytes) -> bytes:
    """What `pack` was given, as JSON."""
    return zlib.decompress(body) if body.startswith(_ZLIB) else body
