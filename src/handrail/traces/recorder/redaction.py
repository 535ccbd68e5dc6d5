"""Redaction: a function that the operator provides removes what must not be kept, before a span is stored or exported.

    # handrail.toml:  redact = "shop.privacy:redact"
    def redact(values: Mapping[str, Any]) -> Mapping[str, Any]: ...

It is called with a span's payload and again with its attributes, both as plain JSON values.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from handrail.kernel.errors import BadSettings
from handrail.kernel.serialization import as_json
from handrail.traces import semconv
from handrail.traces.model import Span

Redact: TypeAlias = Callable[[Span], Span]


def no_redaction(span: Span) -> Span:
    """The span as it is."""
    return span


def load_redaction(target: str | None, base: Path) -> Redact:
    """Imports the operator's redaction.

    Args:
        target: `module:function`, or None for no redaction.
        base: The folder of handrail.toml, where modules are looked for first.

    Raises:
        BadSettings: There is no such module or function.
    """
    if target is None:
        return no_redaction
    module, name = target.split(":")
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise BadSettings(f'redact: "{target}": no module {error.name!r}, neither in {base} nor installed') from error
    if not callable(function):
        raise BadSettings(f'redact: "{target}" is not a function; it must take a mapping and return one')
    return build_redaction(function)


def build_redaction(function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Redact:
    """Applies `function` to a span's payload and attributes; if it fails, the span keeps neither."""

    def redact(span: Span) -> Span:
        try:
            payload = None if span.payload is None else _mapping(function(_plain(span.payload)))
            return replace(span, attributes=_mapping(function(_plain(span.attributes))), payload=payload)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the run goes on without the content
            failed = f"failed: {type(error).__name__}"
            return replace(span, attributes={semconv.REDACTION: failed}, payload=None)

    return redact


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(as_json(dict(values)))
    return plain


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("redact did not return a mapping")
    return value
