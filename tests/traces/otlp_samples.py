"""OTLP requests for tests, in both encodings."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
START = 1_700_000_000_000_000_000


def any_value(value: Any) -> AnyValue:
    encoded = AnyValue()
    match value:
        case bool():
            encoded.bool_value = value
        case int():
            encoded.int_value = value
        case float():
            encoded.double_value = value
        case str():
            encoded.string_value = value
        case bytes():
            encoded.bytes_value = value
        case list():
            encoded.array_value.values.extend(map(any_value, value))
            encoded.array_value.SetInParent()
        case dict():
            encoded.kvlist_value.values.extend(pairs(value))
            encoded.kvlist_value.SetInParent()
    return encoded


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes.items()]


def span(number: int = 1, attributes: Mapping[str, Any] | None = None, **overrides: Any) -> OtlpSpan:
    """A root span of one second; `overrides` are fields of OTLP's span."""
    fields: dict[str, Any] = {
        "trace_id": bytes([7] * 16),
        "span_id": number.to_bytes(8),
        "name": f"span {number}",
        "start_time_unix_nano": START,
        "end_time_unix_nano": START + 10**9,
        "attributes": pairs(attributes or {}),
    }
    return OtlpSpan(**{**fields, **overrides})


def request(spans: Sequence[OtlpSpan], resource: Mapping[str, Any] | None = None) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    resource_spans = message.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs(resource or {}))
    resource_spans.scope_spans.add().spans.extend(spans)
    return message


def protobuf(*spans: OtlpSpan, resource: Mapping[str, Any] | None = None) -> bytes:
    return bytes(request(spans, resource).SerializeToString())


def as_json(*spans: OtlpSpan, resource: Mapping[str, Any] | None = None) -> bytes:
    """The same request in OTLP's JSON: ids in hex, integers as strings."""
    from google.protobuf.json_format import MessageToDict

    body = MessageToDict(request(spans, resource))
    for resource_spans in body.get("resourceSpans", []):
        for scope_spans in resource_spans.get("scopeSpans", []):
            for span_ in scope_spans.get("spans", []):
                for holder in (span_, *span_.get("links", [])):
                    for key in ("traceId", "spanId", "parentSpanId"):
                        if key in holder:
                            holder[key] = base64.b64decode(holder[key]).hex()
    return json.dumps(body).encode()
