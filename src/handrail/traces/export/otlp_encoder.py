"""Our spans under the GenAI conventions' names, as OTLP: the way out, where `reading.py` is the way in."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handrail.kernel.money import usd
from handrail.kernel.serialization import as_json
from handrail.traces import semconv
from handrail.traces.model import Span

from .messages import input_messages, instructions, output_message, text_message

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_MOST_INT = 2**63 - 1


def as_otlp(spans: Sequence[Span]) -> bytes:
    """An ExportTraceServiceRequest with `spans`, and with what was said in them where they have it."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(_pairs({"service.name": "handrail"}))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "handrail"
    for span in spans:
        written = scope_spans.spans.add()
        written.trace_id = bytes.fromhex(span.trace_id)
        written.span_id = bytes.fromhex(span.span_id)
        written.parent_span_id = bytes.fromhex(span.parent_id or "")
        written.name = span.name
        # A request goes out to a provider; all else happens in this program (GenAI conventions, span kinds).
        written.kind = otlp.Span.SPAN_KIND_CLIENT if span.kind == "model" else otlp.Span.SPAN_KIND_INTERNAL
        written.start_time_unix_nano = span.start_ns
        written.end_time_unix_nano = span.end_ns
        written.attributes.extend(_pairs({**attributes_of(span), **content_of(span)}))
        if span.error_type is not None:
            written.status.code = otlp.Status.STATUS_CODE_ERROR
    return bytes(request.SerializeToString())


def attributes_of(span: Span) -> dict[str, Any]:
    """A span's fields and attributes under the conventions' names; content is a matter of `content_of`.

    Users and conversations go by two names, since no backend knows both conventions'. Tokens written to the cache go by
    the older name: under the new one Langfuse counts them twice, and Phoenix not at all.
    """
    fields: dict[str, Any] = {
        semconv.OPERATION: semconv.PLAINEST[semconv.OPERATION].get(span.kind),
        semconv.AGENT: span.agent,
        semconv.CONVERSATION: span.conversation_id,
        "session.id": span.conversation_id,
        semconv.USER: span.user,
        "user.id": span.user,
        semconv.TENANT: span.tenant,
        semconv.RUN: span.run_id,
        semconv.ERROR: span.error_type,
        semconv.FINGERPRINT: span.fingerprint,
        semconv.ATTEMPT: span.attempt if span.attempt > 1 else None,
        semconv.RETRY_OF: span.retry_of,
        semconv.COST: span.cost or None,
        semconv.HELD: span.held,
        semconv.PROVIDER: span.provider,
        semconv.REQUEST_MODEL: span.model,
        semconv.RESPONSE_MODEL: span.model,
        semconv.FIRST_CHUNK: None if span.first_token_ns is None else span.first_token_ns / 1e9,
    }
    if span.kind == "model":
        fields |= {
            semconv.INPUT_TOKENS: span.usage.input,
            semconv.OUTPUT_TOKENS: span.usage.output,
            semconv.CACHE_READ: span.usage.cache_read or None,
            semconv.CACHE_CREATION: span.usage.cache_write or None,
            semconv.REPORTED_COST: float(usd(span.cost)),
        }
    present = {name: value for name, value in fields.items() if value not in (None, "")}
    return {**present, **span.attributes}


def content_of(span: Span) -> Mapping[str, str]:
    """What was said in one of our spans, under the conventions' names, each as JSON."""
    said: Mapping[str, Any] = json.loads(as_json(dict(span.payload or {})))
    found: dict[str, Any] = {}
    match span.kind:
        case "model":
            messages = said.get("messages")
            found["gen_ai.system_instructions"] = instructions(messages)
            found["gen_ai.input.messages"] = input_messages(messages)
            if said.get("response"):
                found["gen_ai.output.messages"] = [output_message(said["response"])]
        case "tool":
            found["gen_ai.tool.call.arguments"] = said.get("arguments")
            found["gen_ai.tool.call.result"] = said.get("result")
        case _:
            if "input" in said:
                found["gen_ai.input.messages"] = [text_message("user", _as_text(said["input"]))]
            if "outcome" in said:
                found["gen_ai.output.messages"] = [text_message("assistant", _as_text(said["outcome"]))]
    return {name: _as_text(value) for name, value in found.items() if value}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pairs(attributes: Mapping[str, Any]) -> "list[KeyValue]":
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    return [KeyValue(key=_utf8(name), value=_value(value)) for name, value in attributes.items() if value is not None]


def _value(value: Any) -> Any:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if abs(value) <= _MOST_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=_utf8(value))
        case list() | tuple() if all(isinstance(each, str | bool | int | float) for each in value):
            return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue(string_value=as_json(value).decode())


def _utf8(text: str) -> str:
    """Half a surrogate pair is no character to protobuf."""
    return text.encode("utf-8", "replace").decode()
