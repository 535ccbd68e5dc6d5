"""Decodes OTLP's JSON: ids in hex, 64-bit integers as strings or numbers, keys in camelCase or snake_case."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from handrail.traces.model import RawSpan, SpanEvent
from handrail.traces.payloads import MAX_DEPTH

from .validation import (
    MAX_REQUEST_SPANS,
    InvalidOtlp,
    RejectedSpan,
    finite_or_text,
    shared_attributes,
    too_many_spans,
    validate_span,
)

_NOT_OTLP = "OTLP: the body is not a JSON ExportTraceServiceRequest"
_CAPITAL = re.compile("[A-Z]")
_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)


def decode_json(body: bytes) -> Iterator[RawSpan | RejectedSpan]:
    """Yields the spans of an ExportTraceServiceRequest, and the reason in place of each rejected span.

    Raises:
        InvalidOtlp: The body is not such a request.
        OtlpTooLarge: It has too many spans.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidOtlp(_NOT_OTLP) from None
    number = 0
    for resource_spans in _list(request, "resourceSpans"):
        resource = _resource_attributes(_get(resource_spans, "resource"))
        for scope_spans in _list(resource_spans, "scopeSpans"):
            scope = _get(scope_spans, "scope")
            name = _get(scope, "name") if isinstance(scope, dict) else None
            shared = shared_attributes(resource, name if isinstance(name, str) else "")
            for span in _list(scope_spans, "spans"):
                number += 1
                if number > MAX_REQUEST_SPANS:
                    raise too_many_spans()
                try:
                    yield validate_span(_span(span, shared))
                except RejectedSpan as reason:
                    yield reason


def _get(message: Any, key: str) -> Any:
    """The value under `key` or its snake_case form. Raises InvalidOtlp if the message is not an object."""
    if not isinstance(message, dict):
        raise InvalidOtlp(_NOT_OTLP)
    return message[key] if key in message else message.get(_CAPITAL.sub(lambda match: f"_{match[0].lower()}", key))


def _list(message: Any, key: str) -> list[Any]:
    value = _get(message, key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidOtlp(_NOT_OTLP)
    return value


def _resource_attributes(resource: Any) -> dict[str, Any]:
    """The attributes of a resource; empty if it cannot be read, since its spans are worth keeping without it."""
    try:
        return _attributes(_get(resource, "attributes"), "resource.attributes") if isinstance(resource, dict) else {}
    except RejectedSpan:
        return {}


def _span(span: Any, shared: dict[str, Any]) -> RawSpan:
    if not isinstance(span, dict):
        raise RejectedSpan("the span is not a JSON object")
    status = _get(span, "status") or {}
    if not isinstance(status, dict):
        raise RejectedSpan("status is not an object")
    return RawSpan(
        trace_id=_id(span, "traceId", 32),
        span_id=_id(span, "spanId", 16),
        parent_id=_id(span, "parentSpanId", 16) if str(_get(span, "parentSpanId") or "").strip("0") else None,
        name=_text(span, "name"),
        start_ns=_integer(span, "startTimeUnixNano"),
        end_ns=_integer(span, "endTimeUnixNano"),
        attributes={**shared, **_attributes(_get(span, "attributes"), "attributes")},
        events=[
            SpanEvent(
                name=_text(event, "name"),
                time_ns=_integer(event, "timeUnixNano"),
                attributes=_attributes(_get(event, "attributes"), "events.attributes"),
            )
            for event in _objects(_get(span, "events"), "events")
        ],
        links=[
            {"trace_id": _text(link, "traceId"), "span_id": _text(link, "spanId")}
            for link in _objects(_get(span, "links"), "links")
        ],
        failed=_get(status, "code") in (2, "2", "STATUS_CODE_ERROR"),
        status_message=_text(status, "message"),
    )


def _id(span: dict[str, Any], key: str, digits: int) -> str:
    value = _get(span, key)
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value) or not value.strip("0"):
        raise RejectedSpan(f"{key} must be {digits} hexadecimal digits, not all zero")
    return value.lower()


def _text(message: dict[str, Any], key: str) -> str:
    value = _get(message, key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RejectedSpan(f"{key} is not a string")
    return value


def _integer(message: dict[str, Any], key: str) -> int:
    value = _get(message, key)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise RejectedSpan(f"{key} is not an integer")


def _objects(value: Any, key: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RejectedSpan(f"{key} is not a list of objects")
    return value


def _attributes(pairs: Any, key: str) -> dict[str, Any]:
    return {_text(pair, "key"): _value(_get(pair, "value"), 0) for pair in _objects(pairs, key)}


def _value(value: Any, depth: int) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RejectedSpan('an attribute value is not an object such as {"stringValue": "..."}')
    if depth >= MAX_DEPTH:
        return "{…}"
    for kind, content in value.items():
        match kind:
            case "stringValue" | "string_value":
                return _text(value, kind)
            case "bytesValue" | "bytes_value":
                return _bytes(value, kind)
            case "intValue" | "int_value":
                return _integer(value, kind)
            case "boolValue" | "bool_value":
                return _boolean(value, kind)
            case "doubleValue" | "double_value":
                return _double(value, kind)
            case "arrayValue" | "array_value":
                return [_value(item, depth + 1) for item in _items(content, kind)]
            case "kvlistValue" | "kvlist_value":
                return {_text(pair, "key"): _value(_get(pair, "value"), depth + 1) for pair in _items(content, kind)}
    return None


def _items(value: Any, kind: str) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        raise RejectedSpan(f"{kind} is not an object with a list of values")
    return _objects(value.get("values"), f"{kind}.values")


def _bytes(value: dict[str, Any], kind: str) -> str:
    try:
        return base64.b64decode(_text(value, kind), validate=True).hex()
    except ValueError:
        raise RejectedSpan(f"{kind} is not base64") from None


def _boolean(value: dict[str, Any], kind: str) -> bool:
    content = value[kind]
    if not isinstance(content, bool):
        raise RejectedSpan(f"{kind} is not true or false")
    return content


def _double(value: dict[str, Any], kind: str) -> float | str:
    try:
        return finite_or_text(float(value[kind]))
    except (TypeError, ValueError, OverflowError):
        raise RejectedSpan(f"{kind} is not a number") from None
