"""Spans from OTLP's protobuf. Each is decoded by itself, so that one that is broken is only one that is broken."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from handrail.kernel.errors import MissingExtra
from handrail.traces.normalize import Finished
from handrail.traces.payloads import DEEPEST, Event

from .validation import MOST_SPAN_BYTES, MOST_SPANS, BadOtlp, Malformed, checked, described, finite, too_many

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Fields of the messages around the spans (opentelemetry-proto, trace/v1/trace.proto).
_RESOURCE_SPANS = 1
_RESOURCE, _SCOPE_SPANS = 1, 2
_SCOPE, _SPANS = 1, 2
_BYTES = 2
_FIXED = {1: 8, 5: 4}


def spans_of_protobuf(body: bytes) -> Iterator[Finished | Malformed]:
    """The spans of an ExportTraceServiceRequest, or why one is none. Raises BadOtlp, TooLarge, MissingExtra."""
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource
        from opentelemetry.proto.trace.v1.trace_pb2 import Span
    except ModuleNotFoundError:
        raise MissingExtra("reading OTLP", "server") from None

    def decoded(kind: Any, parts: list[bytes]) -> Any:
        try:
            return kind.FromString(b"".join(parts))
        except DecodeError:
            return kind()

    number = 0
    for resource_spans in _parts(body, _RESOURCE_SPANS):
        resource = _values(decoded(Resource, _parts(resource_spans, _RESOURCE)).attributes)
        for scope_spans in _parts(resource_spans, _SCOPE_SPANS):
            scope = decoded(InstrumentationScope, _parts(scope_spans, _SCOPE))
            common = described(resource, scope.name)
            for encoded in _parts(scope_spans, _SPANS):
                number += 1
                if number > MOST_SPANS:
                    raise too_many()
                try:
                    if len(encoded) > MOST_SPAN_BYTES:
                        raise Malformed(f"it has more than {MOST_SPAN_BYTES:,} bytes")
                    yield checked(_finished(Span.FromString(encoded), common))
                except DecodeError:
                    yield Malformed("it is not valid protobuf")
                except Malformed as reason:
                    yield reason


def _parts(message: bytes, wanted: int) -> list[bytes]:
    """The encoded values of one field of a message; what else is in the message is passed over.

    The wire format: protobuf.dev/programming-guides/encoding.
    """
    found: list[bytes] = []
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(message, at)
        elif wire in _FIXED:
            at += _FIXED[wire]
        elif wire == _BYTES:
            length, at = _varint(message, at)
            if tag >> 3 == wanted:
                found.append(message[at : at + length])
                if len(found) > MOST_SPANS:
                    raise too_many()
            at += length
        else:
            raise BadOtlp("OTLP: the body is not a protobuf ExportTraceServiceRequest")
    if at != end:
        raise BadOtlp("OTLP: the body ends in the middle of a message; was it cut off?")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise BadOtlp("OTLP: the body is not a protobuf ExportTraceServiceRequest")


def _finished(span: "Span", common: dict[str, Any]) -> Finished:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise Malformed("its trace id is not 16 bytes, or all zeros")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise Malformed("its span id is not 8 bytes, or all zeros")
    if len(span.parent_span_id) not in (0, 8):
        raise Malformed("its parent's id is not 8 bytes")
    return Finished(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={**common, **_values(span.attributes)},
        events=[
            Event(name=each.name, time_ns=each.time_unix_nano, attributes=_values(each.attributes))
            for each in span.events
        ],
        links=[{"trace_id": each.trace_id.hex(), "span_id": each.span_id.hex()} for each in span.links],
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        said=span.status.message,
    )


def _values(pairs: "Iterable[KeyValue]") -> dict[str, Any]:
    return {pair.key: _value(pair.value, 0) for pair in pairs}


def _value(value: "AnyValue", depth: int) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return finite(value.double_value)
        case "bool_value":
            return value.bool_value
        case "bytes_value":
            return value.bytes_value.hex()
        case "array_value":
            return "[…]" if depth >= DEEPEST else [_value(each, depth + 1) for each in value.array_value.values]
        case "kvlist_value":
            pairs = value.kvlist_value.values
            return "{…}" if depth >= DEEPEST else {pair.key: _value(pair.value, depth + 1) for pair in pairs}
    return None
