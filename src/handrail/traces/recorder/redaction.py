"""What must not be kept is taken out of a span before it is stored or sent anywhere, by a function of the operator's.

    # handrail.toml:  redact = "shop.privacy:redact"
    def redact(found: Mapping[str, Any]) -> Mapping[str, Any]: ...

It is called with a span's payload and, once more, with its attributes, both as plain JSON values.
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


def unchanged(span: Span) -> Span:
    return span


def load_redact(target: str | None, base: Path) -> Redact:
    """The redaction that `target` (`module:function`) names, looked for in `base` first. Raises BadSettings."""
    if target is None:
        return unchanged
    module, function = target.split(":")
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise BadSettings(f'redact: "{target}": no module {error.name!r} in {base} or installed') from error
    if not callable(found):
        raise BadSettings(f'redact: "{target}" is no function; it gets a mapping and returns one')
    return redacting(found)


def redacting(function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Redact:
    """`function` over a span's payload and attributes. Where it fails, nothing that it should have seen is kept."""

    def redact(span: Span) -> Span:
        try:
            payload = None if span.payload is None else _mapping(function(_plain(span.payload)))
            return replace(span, attributes=_mapping(function(_plain(span.attributes))), payload=payload)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the run goes on and the content does not
            failed = f"failed: {type(error).__name__}"
            return replace(span, attributes={semconv.REDACTION: failed}, payload=None)

    return redact


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(as_json(dict(found)))
    return plain


def _mapping(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise TypeError("redact returned no mapping")
    return found
