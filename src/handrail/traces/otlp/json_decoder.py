"""Spans from OTLP's JSON: ids in hex, whole numbers as strings or numbers, keys in camelCase or snake_case."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from handrail.traces.normalize import Finished
from handrail.traces.payloads import DEEPEST, Event

from .validation import MOST_SPANS, BadOtlp, Malformed, checked, described, finite, too_many

_NOT_JSON = "OTLP: the body is not a JSON ExportTraceServiceRequest"
_CAPITAL = re.compile("[A-Z]")
_WHOLE = re.compile(r"-?\d{1,20}", re.ASCII)


def spans_of_json(body: bytes) -> Iterator[Finished | Malformed]:
    """The spans of an ExportTraceServiceRequest, or why one is none. Raises BadOtlp, TooLarge."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise BadOtlp(_NOT_JSON) from None
    number = 0
    for resource_spans in _list(request, "resourceSpans"):
        resource = _described(_get(resource_spans, "resource"))
        for scope_spans in _list(resource_spans, "scopeSpans"):
            scope = _get(scope_spans, "scope")
            name = _get(scope, "name") if isinstance(scope, dict) else None
            common = described(resource, name if isinstance(name, str) else "")
            for span in _list(scope_spans, "spans"):
                number += 1
                if number > MOST_SPANS:
                    raise too_many()
                try:
                    yield checked(_finished(span, common))
                except Malformed as reason:
                    yield reason


def _get(found: Any, key: str) -> Any:
    """The value under `key`, or under its snake_case form. Raises BadOtlp where there is no mapping."""
    if not isinstance(found, dict):
        raise BadOtlp(_NOT_JSON)
    return found[key] if key in found else found.get(_CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", key))


def _list(found: Any, key: str) -> list[Any]:
    value = _get(found, key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadOtlp(_NOT_JSON)
    return value


def _described(resource: Any) -> dict[str, Any]:
    try:
        return _values(_get(resource, "attributes")) if isinstance(resource, dict) else {}
    except Malformed:
        return {}


def _finished(span: Any, common: dict[str, Any]) -> Finished:
    if not isinstance(span, dict):
        raise Malformed("it is not a mapping")
    status = _get(span, "status") or {}
    if not isinstance(status, dict):
        raise Malformed("its status is not a mapping")
    return Finished(
        trace_id=_id(span, "traceId", 32),
        span_id=_id(span, "spanId", 16),
        parent_id=_id(span, "parentSpanId", 16) if str(_get(span, "parentSpanId") or "").strip("0") else None,
        name=_text(span, "name"),
        start_ns=_whole(_get(span, "startTimeUnixNano")),
        end_ns=_whole(_get(span, "endTimeUnixNano")),
        attributes={**common, **_values(_get(span, "attributes"))},
        events=[
            Event(
                name=_text(each, "name"),
                time_ns=_whole(_get(each, "timeUnixNano")),
                attributes=_values(_get(each, "attributes")),
            )
            for each in _mappings(_get(span, "events"))
        ],
        links=[
            {"trace_id": _text(each, "traceId"), "span_id": _text(each, "spanId")}
            for each in _mappings(_get(span, "links"))
        ],
        failed=_get(status, "code") in (2, "2", "STATUS_CODE_ERROR"),
        said=_text(status, "message"),
    )


def _id(span: dict[str, Any], key: str, digits: int) -> str:
    value = _get(span, key)
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value) or not value.strip("0"):
        raise Malformed(f"its {key} is not {digits} hex digits, or all zeros")
    return value.lower()


def _text(found: dict[str, Any], key: str) -> str:
    value = _get(found, key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"its {key} is not a text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Malformed("a whole number in it is none")


def _mappings(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Malformed("a list in it is none")
    return value


def _values(pairs: Any) -> dict[str, Any]:
    return {_text(pair, "key"): _value(_get(pair, "value"), 0) for pair in _mappings(pairs)}


def _value(value: Any, depth: int) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Malformed("a value in it is not typed")
    if depth >= DEEPEST:
        return "{…}"
    for kind, given in value.items():
        match kind:
            case "stringValue" | "string_value":
                return _text(value, kind)
            case "bytesValue" | "bytes_value":
                return _bytes(_text(value, kind))
            case "intValue" | "int_value":
                return _whole(given)
            case "boolValue" | "bool_value":
                return _bool(given)
            case "doubleValue" | "double_value":
                return _double(given)
            case "arrayValue" | "array_value":
                return [_value(each, depth + 1) for each in _mappings(_inner(given))]
            case "kvlistValue" | "kvlist_value":
                return {_text(pair, "key"): _value(_get(pair, "value"), depth + 1) for pair in _mappings(_inner(given))}
    return None


def _inner(value: Any) -> Any:
    if not isinstance(value, dict):
        raise Malformed("a list in it is none")
    return value.get("values")


def _bytes(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except ValueError:
        raise Malformed("bytes in it are not base 64") from None


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed("a truth value in it is none")
    return value


def _double(value: Any) -> float | str:
    try:
        return finite(float(value))
    except (TypeError, ValueError, OverflowError):
        raise Malformed("a number in it is none") from None
