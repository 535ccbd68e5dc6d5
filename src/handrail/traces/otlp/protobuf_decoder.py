"""Decodes OTLP's protobuf.

The messages that contain the spans are split by hand and each span is parsed separately, since protobuf rejects a whole
message for one broken field: this way, a broken span does not affect the others.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from handrail.kernel.errors import MissingExtra
from handrail.traces.model import RawSpan, SpanEvent
from handrail.traces.payloads import MAX_DEPTH

from .validation import (
    MAX_REQUEST_SPANS,
    MAX_SPAN_BYTES,
    InvalidOtlp,
    RejectedSpan,
    finite_or_text,
    shared_attributes,
    too_many_spans,
    validate_span,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Fields of the messages around the spans (opentelemetry-proto, trace/v1/trace.proto).
_RESOURCE_SPANS = 1
_RESOURCE, _SCOPE_SPANS = 1, 2
_SCOPE, _SPANS = 1, 2
# Wire types.
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}

_NOT_OTLP = "OTLP: the body is not a protobuf ExportTraceServiceRequest"


def decode_protobuf(body: bytes) -> Iterator[RawSpan | RejectedSpan]:
    """Yields the spans of an ExportTraceServiceRequest, and the reason in place of each rejected span.

    Raises:
        InvalidOtlp: The body is not such a request.
        OtlpTooLarge: It has too many spans.
        MissingExtra: The protobuf packages are not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource
        from opentelemetry.proto.trace.v1.trace_pb2 import Span
    except ModuleNotFoundError:
        raise MissingExtra("reading OTLP", "server") from None

    def parse(kind: Any, parts: list[bytes]) -> Any:
        """A message that may be sent in parts; an empty one if it is broken, as its spans are worth keeping."""
        try:
            return kind.FromString(b"".join(parts))
        except DecodeError:
            return kind()

    number = 0
    for resource_spans in _parts(body, _RESOURCE_SPANS):
        resource = _attributes(parse(Resource, _parts(resource_spans, _RESOURCE)).attributes)
        for scope_spans in _parts(resource_spans, _SCOPE_SPANS):
            scope = parse(InstrumentationScope, _parts(scope_spans, _SCOPE))
            shared = shared_attributes(resource, scope.name)
            for encoded in _parts(scope_spans, _SPANS):
                number += 1
                if number > MAX_REQUEST_SPANS:
                    raise too_many_spans()
                try:
                    if len(encoded) > MAX_SPAN_BYTES:
                        raise RejectedSpan(f"the span is larger than {MAX_SPAN_BYTES:,} bytes")
                    yield validate_span(_span(Span.FromString(encoded), shared))
                except DecodeError:
                    yield RejectedSpan("the span is not valid protobuf")
                except RejectedSpan as reason:
                    yield reason


def _parts(message: bytes, field: int) -> list[bytes]:
    """The encoded values of one length-delimited field of a message; all other fields are skipped.

    The wire format: protobuf.dev/programming-guides/encoding.
    """
    values: list[bytes] = []
    offset, end = 0, len(message)
    while offset < end:
        tag, offset = _varint(message, offset)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, offset = _varint(message, offset)
        elif wire_type in _FIXED_BYTES:
            offset += _FIXED_BYTES[wire_type]
        elif wire_type == _LENGTH_DELIMITED:
            length, offset = _varint(message, offset)
            if tag >> 3 == field:
                values.append(message[offset : offset + length])
                # Checked here too: a few bytes can hold thousands of empty messages around the spans.
                if len(values) > MAX_REQUEST_SPANS:
                    raise too_many_spans()
            offset += length
        else:
            raise InvalidOtlp(_NOT_OTLP)
    if offset != end:
        raise InvalidOtlp("OTLP: the body ends in the middle of a message; it may have been cut off")
    return values


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """The variable-length integer at `offset`, and the offset after it."""
    value = shift = 0
    while offset < len(message) and shift < 64:
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
    raise InvalidOtlp(_NOT_OTLP)


def _span(span: "Span", shared: dict[str, Any]) -> RawSpan:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise RejectedSpan("trace_id must be 16 bytes, not all zero")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise RejectedSpan("span_id must be 8 bytes, not all zero")
    if len(span.parent_span_id) not in (0, 8):
        raise RejectedSpan("parent_span_id must be 8 bytes or absent")
    return RawSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={**shared, **_attributes(span.attributes)},
        events=[
            SpanEvent(name=event.name, time_ns=event.time_unix_nano, attributes=_attributes(event.attributes))
            for event in span.events
        ],
        links=[{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links],
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        status_message=span.status.message,
    )


def _attributes(pairs: "Iterable[KeyValue]") -> dict[str, Any]:
    return {pair.key: _value(pair.value, 0) for pair in pairs}


def _value(value: "AnyValue", depth: int) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return finite_or_text(value.double_value)
        case "bool_value":
            return value.bool_value
        case "bytes_value":
            return value.bytes_value.hex()
        case "array_value":
            return "[…]" if depth >= MAX_DEPTH else [_value(item, depth + 1) for item in value.array_value.values]
        case "kvlist_value":
            pairs = value.kvlist_value.values
            return "{…}" if depth >= MAX_DEPTH else {pair.key: _value(pair.value, depth + 1) for pair in pairs}
    return None
