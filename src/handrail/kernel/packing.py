"""Documents in the store: JSON, compressed, and never a reason for a run to end."""

import json
import zlib
from typing import Any

from pydantic_core import to_json, to_jsonable_python

# Level 1 costs a fifth of the default's time for a tenth more bytes.
_LEVEL = 1


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


def pack(found: Any) -> bytes:
    """`found` as compressed JSON; `as_json` says how what JSON lacks is written."""
    return zlib.compress(as_json(found), _LEVEL)


def unpack(body: bytes) -> Any:
    """What `pack` was given, as plain values."""
    return json.loads(unpack_json(body))


def unpack_json(body: bytes) -> bytes:
    """What `pack` was given, as JSON."""
    return zlib.decompress(body)
