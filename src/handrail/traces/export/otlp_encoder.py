"""Encodes spans as OTLP, under the names of the GenAI conventions: the inverse of `normalize.py`."""

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

_MAX_INT = 2**63 - 1


def encode_request(spans: Sequence[Span]) -> bytes:
    """An ExportTraceServiceRequest with the spans, and with their content if they have a payload."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(_pairs({"service.name": "handrail"}))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "handrail"
    for span in spans:
        message = scope_spans.spans.add()
        message.trace_id = bytes.fromhex(span.trace_id)
        message.span_id = bytes.fromhex(span.span_id)
        message.parent_span_id = bytes.fromhex(span.parent_id or "")
        message.name = span.name
        # The GenAI conventions' span kinds: a model request is a call to another service, all else happens here.
        message.kind = otlp.Span.SPAN_KIND_CLIENT if span.kind == "model" else otlp.Span.SPAN_KIND_INTERNAL
        message.start_time_unix_nano = span.start_ns
        message.end_time_unix_nano = span.end_ns
        message.attributes.extend(_pairs({**span_attributes(span), **span_content(span)}))
        if span.error_type is not None:
            message.status.code = otlp.Status.STATUS_CODE_ERROR
    return bytes(request.SerializeToString())


def span_attributes(span: Span) -> dict[str, Any]:
    """A span's fields and attributes under the conventions' names, without its content.

    Users and conversations are sent under two names each, since no backend knows both. Tokens written to the cache are
    sent under the older name: under the new one Langfuse counts them twice, and Phoenix not at all.
    """
    fields: dict[str, Any] = {
        semconv.OPERATION: semconv.DEFAULT_KIND_VALUES[semconv.OPERATION].get(span.kind),
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


def span_content(span: Span) -> Mapping[str, str]:
    """The content of one of Handrail's own spans under the conventions' names, each value as JSON."""
    payload: Mapping[str, Any] = json.loads(as_json(dict(span.payload or {})))
    content: dict[str, Any] = {}
    match span.kind:
        case "model":
            messages = payload.get("messages")
            content["gen_ai.system_instructions"] = instructions(messages)
            content["gen_ai.input.messages"] = input_messages(messages)
            if payload.get("response"):
                content["gen_ai.output.messages"] = [output_message(payload["response"])]
        case "tool":
            content["gen_ai.tool.call.arguments"] = payload.get("arguments")
            content["gen_ai.tool.call.result"] = payload.get("result")
        case _:
            if "input" in payload:
                content["gen_ai.input.messages"] = [text_message("user", _as_text(payload["input"]))]
            if "outcome" in payload:
                content["gen_ai.output.messages"] = [text_message("assistant", _as_text(payload["outcome"]))]
    return {name: _as_text(value) for name, value in content.items() if value}


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
        case int() if abs(value) <= _MAX_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=_utf8(value))
        case list() | tuple() if all(isinstance(item, str | bool | int | float) for item in value):
            return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    return AnyValue(string_value=as_json(value).decode())


def _utf8(text: str) -> str:
    """The text with each half of a surrogate pair, which protobuf rejects, replaced."""
    return text.encode("utf-8", "replace").decode()
