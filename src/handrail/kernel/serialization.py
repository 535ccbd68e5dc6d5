"""Documents in the store: JSON, compressed, and never a reason for a run to end."""

import dataclasses
import json
import re
import zlib
from collections.abc import Mapping
from enum import Enum
from itertools import islice
from types import GeneratorType
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic_core import to_json, to_jsonable_python

# Level 1 costs a fifth of the default's time for a tenth more bytes; on a short text it saves nothing at all.
_LEVEL = 1
_SHORT = 512
MAX_NESTING = 100
"""Levels of nested lists and mappings; anything deeper is kept as its text."""
MAX_GENERATED = 1_000
"""Values that are taken from a generator."""
MAX_STORED_BYTES = 65_536
"""The most that is stored of what a tool returned."""
_SURROGATE = re.compile("[\ud800-\udfff]")
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
        return to_json(value, bytes_mode="base64", fallback=_text_of)
    except Exception:  # noqa: BLE001 - a value may run its author's code, and must not end the run all the same
        return json.dumps(to_plain(value)[0], ensure_ascii=False).encode("utf-8", "replace")


def to_plain(value: Any) -> tuple[Any, bool]:
    """The value as what JSON consists of: mappings with texts as keys, lists, texts, numbers, booleans and None.

    A set becomes a sorted list, so that equal values have equal forms in every process. A generator is used up.

    Args:
        value: Anything.

    Returns:
        The plain value, and whether it is complete: False if part of it is only its text, because JSON has no form for
        it, it contains itself, or it has more than MAX_NESTING levels.
    """
    plain = _Plain()
    return plain.convert(value, 0), plain.complete


class _Plain:
    """One conversion."""

    def __init__(self) -> None:
        self.complete = True
        self._open: set[int] = set()
        """The containers that the conversion is within."""

    def convert(self, value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, str):
            text = str.__str__(value)
            self.complete = self.complete and text.isascii() | (_SURROGATE.search(text) is None)
            return text
        if id(value) in self._open or depth > MAX_NESTING:
            return self._text(value)
        self._open.add(id(value))
        try:
            return self._convert_object(value, depth + 1)
        except Exception:  # noqa: BLE001 - as in as_json
            return self._text(value)
        finally:
            self._open.discard(id(value))

    def _convert_object(self, value: Any, depth: int) -> Any:
        match value:
            case Enum():
                return self.convert(value.value, depth)
            case Mapping():
                return {self._key(name): self.convert(item, depth) for name, item in value.items()}
            case set() | frozenset():
                return sorted((self.convert(item, depth) for item in value), key=canonical_json)
            case list() | tuple():
                return [self.convert(item, depth) for item in value]
            case GeneratorType() | map() | filter() | zip():
                self.complete = False
                return [self.convert(item, depth) for item in islice(value, MAX_GENERATED)]
            case RootModel():
                return self.convert(value.root, depth)
            case BaseModel():
                fields = {**value.__dict__, **(value.model_extra or {})}
                return {name: self.convert(item, depth) for name, item in fields.items()}
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
                return {name: self.convert(item, depth) for name, item in fields.items()}
            case _:
                return to_jsonable_python(value, bytes_mode="base64")

    def _key(self, name: Any) -> str:
        if isinstance(name, str):
            return str.__str__(name)
        try:
            return str(next(iter(json.loads(to_json({name: None})))))
        except Exception:  # noqa: BLE001 - as in as_json
            return str(self._text(name))

    def _text(self, value: Any) -> str:
        self.complete = False
        return _text_of(value)


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - as in as_json
        return f"<{type(value).__name__}>"


def limit_json(value: Any, max_bytes: int = MAX_STORED_BYTES) -> Any:
    """The value as plain JSON values of a bounded size; one that is larger becomes the beginning of its JSON.

    Args:
        value: Anything.
        max_bytes: The most bytes of JSON that are kept.
    """
    plain, _ = to_plain(value)
    body = as_json(plain)
    if len(body) <= max_bytes:
        return json.loads(body)
    return f"{body[:max_bytes].decode('utf-8', 'ignore')} [cut: it had {len(body):,} bytes of JSON]"


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
