"""Decoding of OTLP requests: valid spans are kept, invalid ones counted, and no request can crash the decoder."""

import gzip
import json
import logging
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from handrail.config.settings import PriceOverride
from handrail.kernel.money import NanoUsd
from handrail.traces import semconv
from handrail.traces.model import Span, Usage
from handrail.traces.otlp.ingest import OtlpBatch, decode_request, encode_response, price_lookup
from handrail.traces.otlp.validation import (
    MAX_REQUEST_BYTES,
    MAX_REQUEST_SPANS,
    MAX_SPAN_BYTES,
    InvalidOtlp,
    OtlpTooLarge,
    UnsupportedOtlpMedia,
)
from handrail.traces.recorder.redaction import build_redaction
from tests.traces.otlp_samples import JSON, PROTOBUF, START, as_json, protobuf, request, span
from tests.traces.test_normalize import attributes_in_any_dialect

Encode = Callable[..., bytes]
BOTH = pytest.mark.parametrize(("encode", "media"), [(protobuf, PROTOBUF), (as_json, JSON)])

VALUES = {"text": "é", "whole": -(2**63), "part": 0.5, "yes": True, "list": ["a", 1], "map": {"a": {"b": 2}}}


def unknown(_model: str, _provider: str | None, _usage: Usage) -> NanoUsd | None:
    return None


def read(body: bytes, media: str = PROTOBUF, encoding: str | None = None, **overrides: Any) -> OtlpBatch:
    arguments: dict[str, Any] = {"tenant": "acme", "price": unknown, **overrides}
    return decode_request(body, media, encoding, **arguments)


def read_one(body: bytes, media: str = PROTOBUF, **overrides: Any) -> Span:
    [decoded] = read(body, media, **overrides).spans
    return decoded


@BOTH
def test_every_part_of_a_span(encode: Encode, media: str) -> None:
    """Ids, times, parent, attributes of every type, events, links and status are read from either encoding."""
    sent = span(
        parent_span_id=bytes([1] * 8),
        attributes={**VALUES, "bytes": b"\x01\xff"},
        events=[OtlpSpan.Event(name="hit", time_unix_nano=START + 5)],
        links=[OtlpSpan.Link(trace_id=bytes([2] * 16), span_id=bytes([3] * 8))],
        status=Status(code=Status.STATUS_CODE_ERROR, message="it broke"),
    )
    decoded = read_one(encode(sent), media)
    assert (decoded.trace_id, decoded.span_id, decoded.parent_id) == ("07" * 16, "0000000000000001", "01" * 8)
    assert (decoded.name, decoded.start_ns, decoded.end_ns, decoded.error_type) == (
        "span 1",
        START,
        START + 10**9,
        "error",
    )
    assert decoded.attributes == {
        **VALUES,
        "bytes": "01ff",
        semconv.LINKS: [{"trace_id": "02" * 16, "span_id": "03" * 8}],
    }
    assert decoded.payload == {"events": [{"name": "hit", "time_ns": START + 5, "attributes": {}}], "error": "it broke"}


@given(attributes_in_any_dialect)
def test_both_encodings_agree(attributes: dict[str, Any]) -> None:
    """A span in any dialect is the same from protobuf and from JSON."""
    sent = span(attributes=attributes)
    assert read(protobuf(sent)) == read(as_json(sent), JSON)


def test_json_variants() -> None:
    """Keys in snake_case, integers as numbers, upper-case ids, and NaN and infinities by name are read."""
    body = {
        "resource_spans": [
            {
                "scope_spans": [
                    {
                        "spans": [
                            {
                                "trace_id": "AB" * 16,
                                "span_id": "cd" * 8,
                                "start_time_unix_nano": START,
                                "end_time_unix_nano": str(START),
                                "attributes": [
                                    {"key": "n", "value": {"int_value": 7}},
                                    {"key": "x", "value": {"doubleValue": "NaN"}},
                                    {"key": "y", "value": {}},
                                ],
                            }
                        ]
                    }
                ]
            }
        ]
    }
    decoded = read_one(json.dumps(body).encode(), JSON)
    assert (decoded.trace_id, decoded.span_id, decoded.name) == ("ab" * 16, "cd" * 8, "")
    assert decoded.attributes == {"n": 7, "x": "nan", "y": None}


@pytest.mark.parametrize("media", [f"{PROTOBUF}; charset=utf-8", "application/protobuf", "APPLICATION/X-PROTOBUF"])
def test_media_types(media: str) -> None:
    """A media type is read without its parameters and regardless of case."""
    assert len(read(protobuf(span()), media).spans) == 1


def test_unsupported_media() -> None:
    """Other content types and encodings raise UnsupportedOtlpMedia."""
    for media, encoding in (("text/plain", None), ("", None), (PROTOBUF, "br")):
        with pytest.raises(UnsupportedOtlpMedia):
            read(protobuf(span()), media, encoding)


@BOTH
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"trace_id": b"short"}, "trace_id|traceId"),
        ({"trace_id": bytes(16)}, "not all zero"),
        ({"span_id": b""}, "span_id|spanId"),
        ({"span_id": bytes(8)}, "not all zero"),
        ({"parent_span_id": b"abc"}, "parent"),
        ({"start_time_unix_nano": 0}, "start time"),
        ({"end_time_unix_nano": 0}, "end time"),
        ({"end_time_unix_nano": 2**63}, "end time"),
        ({"end_time_unix_nano": START - 2 * 10**9}, "ends before it starts"),
    ],
)
def test_one_invalid_span(encode: Encode, media: str, overrides: Mapping[str, Any], reason: str) -> None:
    """An invalid span is counted with its reason, and the others of its request are kept."""
    received = read(encode(span(1), span(2, **overrides), span(3)), media)
    assert [span_.name for span_ in received.spans] == ["span 1", "span 3"]
    assert received.rejected == 1
    [problem] = received.reasons
    assert any(part in problem for part in reason.split("|"))


@BOTH
def test_a_clock_that_was_set_back(encode: Encode, media: str) -> None:
    """A span that ends up to a second before it starts has no duration."""
    assert read_one(encode(span(end_time_unix_nano=START - 10**9)), media).duration_ns == 0


def test_invalid_utf8() -> None:
    """A span with a text that was cut within a character, as some senders do, is rejected alone."""
    body = protobuf(span(1), span(2, {"note": "xyz"}), span(3)).replace(b"xyz", b"xy\xc3")
    received = read(body)
    assert ([span_.name for span_ in received.spans], received.rejected) == (["span 1", "span 3"], 1)


def test_wrong_json_types() -> None:
    """A value of the wrong JSON type anywhere in a span rejects that span."""
    good: dict[str, Any] = json.loads(as_json(span(1)))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    wrong: list[Any] = [
        7,
        None,
        {**good, "traceId": 7},
        {**good, "name": ["x"]},
        {**good, "startTimeUnixNano": "soon"},
        {**good, "startTimeUnixNano": True},
        {**good, "status": "bad"},
        {**good, "attributes": {"a": 1}},
        {**good, "attributes": [7]},
        {**good, "attributes": [{"key": 7}]},
        {**good, "attributes": [{"key": "a", "value": "untyped"}]},
        {**good, "attributes": [{"key": "a", "value": {"boolValue": "yes"}}]},
        {**good, "attributes": [{"key": "a", "value": {"bytesValue": "not base 64"}}]},
        {**good, "attributes": [{"key": "a", "value": {"doubleValue": "much"}}]},
        {**good, "attributes": [{"key": "a", "value": {"arrayValue": [1]}}]},
        {**good, "attributes": [{"key": "a", "value": {"arrayValue": {"values": [1]}}}]},
        {**good, "events": [{"name": "x", "timeUnixNano": {}}]},
        {**good, "links": "none"},
    ]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [good, *wrong]}]}]}
    received = read(json.dumps(body).encode(), JSON)
    assert (len(received.spans), received.rejected) == (1, len(wrong))


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"7", b'{"resourceSpans": 7}', b'{"resourceSpans": [7]}', b"\xff", b"[" * 100_000, b"9" * 5_000],
)
def test_json_that_is_not_otlp(body: bytes) -> None:
    """A body that is not a JSON request raises InvalidOtlp."""
    with pytest.raises(InvalidOtlp):
        read(body, JSON)


@pytest.mark.parametrize("body", [b"\x0b", b"\x0a\x05abc", b"\xff" * 20, b"\x0a", b'{"resourceSpans": []}'])
def test_protobuf_that_is_not_otlp(body: bytes) -> None:
    """A body that is not a protobuf request raises InvalidOtlp."""
    with pytest.raises(InvalidOtlp):
        read(body)


def test_unknown_fields() -> None:
    """Unknown fields are skipped, of every wire type."""
    unknown_fields = b"\xf8\x01\x96\x01" + b"\xf9\x01" + bytes(8) + b"\xfa\x01\x03abc" + b"\xfd\x01" + bytes(4)
    assert len(read(unknown_fields + protobuf(span()) + unknown_fields).spans) == 1


@BOTH
def test_an_empty_request(encode: Encode, media: str) -> None:
    """A request without spans is valid, and has none."""
    assert read(encode(), media) == OtlpBatch([], 0, [])


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON]), st.sampled_from([None, "gzip"]))
def test_any_bytes(body: bytes, media: str, encoding: str | None) -> None:
    """Any bytes are either decoded or rejected."""
    try:
        read(body, media, encoding)
    except (InvalidOtlp, OtlpTooLarge):
        return


_bodies = {
    PROTOBUF: protobuf(*(span(n, {"gen_ai.operation.name": "chat", "list": ["a", {"b": 1.5}]}) for n in range(1, 5))),
    JSON: as_json(*(span(n, {"gen_ai.operation.name": "chat", "list": ["a", {"b": 1.5}]}) for n in range(1, 5))),
}


@given(st.sampled_from([PROTOBUF, JSON]), st.data())
def test_a_damaged_request(media: str, data: st.DataObject) -> None:
    """A changed or truncated body is rejected or gives valid spans only."""
    body = bytearray(_bodies[media])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        received = read(bytes(body[: data.draw(st.integers(0, len(body)))]), media)
    except (InvalidOtlp, OtlpTooLarge):
        return
    assert all(len(span_.trace_id) == 32 and 0 < span_.start_ns <= span_.end_ns for span_ in received.spans)


_faults: list[dict[str, Any]] = [{"trace_id": b"x"}, {"span_id": bytes(8)}, {"start_time_unix_nano": 0}]


@given(st.lists(st.none() | st.sampled_from(_faults), max_size=30), st.booleans())
def test_every_span_is_kept_or_counted(faults: list[dict[str, Any] | None], in_json: bool) -> None:
    """In any mixture of valid and invalid spans, the valid ones are kept in order and the others counted exactly."""
    spans = [span(n, **(fault or {})) for n, fault in enumerate(faults, 1)]
    received = read(as_json(*spans), JSON) if in_json else read(protobuf(*spans))
    assert [span_.name for span_ in received.spans] == [f"span {n}" for n, fault in enumerate(faults, 1) if not fault]
    assert received.rejected == sum(fault is not None for fault in faults)


def test_gzip() -> None:
    """A compressed body is the same request; one that is cut off or not gzip raises InvalidOtlp."""
    body = protobuf(span())
    compressed = gzip.compress(body)
    assert read(compressed, PROTOBUF, "gzip") == read(body)
    for wrong in (body, compressed[:-9], b""):
        with pytest.raises(InvalidOtlp):
            read(wrong, PROTOBUF, "gzip")


def test_a_decompression_bomb() -> None:
    """A compressed body of 200 MB is rejected without decompressing all of it into memory."""
    bomb = gzip.compress(bytes(10 * MAX_REQUEST_BYTES))
    tracemalloc.start()
    try:
        with pytest.raises(OtlpTooLarge):
            read(bomb, PROTOBUF, "gzip")
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_REQUEST_BYTES
    finally:
        tracemalloc.stop()


def test_sizes() -> None:
    """A request with too many bytes or spans raises OtlpTooLarge; a span with too many bytes is rejected alone."""
    with pytest.raises(OtlpTooLarge):
        read(bytes(MAX_REQUEST_BYTES + 1))
    empty_spans = b"\x12\x00" * (MAX_REQUEST_SPANS + 1)
    scope_spans = b"\x12" + _varint(len(empty_spans)) + empty_spans
    with pytest.raises(OtlpTooLarge):
        read(b"\x0a" + _varint(len(scope_spans)) + scope_spans)
    spread = request([])
    for _ in range(2):
        spread.resource_spans.add().scope_spans.add().spans.extend([OtlpSpan()] * (MAX_REQUEST_SPANS // 2 + 1))
    with pytest.raises(OtlpTooLarge):
        read(spread.SerializeToString())
    received = read(protobuf(span(1), span(2, {"note": "x" * MAX_SPAN_BYTES})))
    assert (len(received.spans), received.rejected) == (1, 1)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


@BOTH
def test_the_keys_tenant(encode: Encode, media: str) -> None:
    """Spans belong to the tenant of the key, and a different claim is kept."""
    assert read_one(encode(span(), resource={"tenant.id": "acme"}), media).attributes == {}
    foreign = read_one(encode(span(attributes={"tenant.id": "other"})), media)
    assert (foreign.tenant, foreign.attributes) == ("acme", {"tenant.id": "other"})


def test_an_operators_key() -> None:
    """With an operator's key a span belongs to the tenant that it or its program names, or to `default`."""
    spans = [span(1), span(2, {"tenant.id": "other"})]
    assert [span_.tenant for span_ in read(protobuf(*spans), tenant=None).spans] == ["default", "other"]
    described = read(protobuf(*spans, resource={"tenant.id": "program"}), tenant=None)
    assert [span_.tenant for span_ in described.spans] == ["program", "other"]


def test_resource_attributes() -> None:
    """Each span keeps its service's name and version and its scope, and no other resource attribute."""
    message = request([span()], {"service.name": "shop", "service.version": "2", "process.pid": 7})
    message.resource_spans[0].scope_spans[0].scope.name = "openinference.openai"
    expected = {"service.name": "shop", "service.version": "2", "otel.scope.name": "openinference.openai"}
    assert read_one(message.SerializeToString()).attributes == expected


def test_prices() -> None:
    """The cost of a model request comes from the price table, and the reported cost is kept."""
    overrides = {"small": PriceOverride(input=1, output=10, cache_read=0.1)}
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 500,
    }
    decoded = read_one(
        protobuf(span(attributes={**attributes, "gen_ai.usage.cost": 0.5})), price=price_lookup(overrides)
    )
    assert (decoded.cost, decoded.reported_cost) == (1_550_000, 500_000_000)
    assert read_one(protobuf(span(attributes=attributes)), price=price_lookup(overrides)).reported_cost is None


def test_a_model_without_a_price() -> None:
    """If the price is unknown, the reported cost counts, and the span says that the price is unknown."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "secret", "gen_ai.usage.input_tokens": 1_000}
    decoded = read_one(protobuf(span(attributes={**attributes, "gen_ai.usage.cost": 0.5})))
    assert (decoded.cost, decoded.attributes[semconv.PRICE_UNKNOWN]) == (500_000_000, True)
    assert read_one(protobuf(span(attributes=attributes))).cost == 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("gcp.gemini", "gemini-2.5-flash"),
    ],
)
def test_providers_by_the_conventions_names(provider: str, model: str) -> None:
    """A provider is looked up under the price table's name if the conventions have another."""
    cost = price_lookup({})(model, provider, Usage(input=1_000))
    assert cost is not None
    assert cost > 0


def test_only_requests_cost() -> None:
    """Token sums on an agent's span have no cost, so that nothing is counted twice."""
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 9,
    }
    assert read_one(protobuf(span(attributes=attributes)), price=price_lookup({})).cost == 0


def test_redaction_comes_first() -> None:
    """Received spans are redacted before they are returned."""
    redact = build_redaction(lambda decoded: dict.fromkeys(decoded, "gone"))
    decoded = read_one(protobuf(span(attributes={"mail": "ann@example.com", "input.value": "hi"})), redact=redact)
    assert (decoded.attributes, decoded.payload) == ({"mail": "gone"}, {"input": "gone"})


def test_responses() -> None:
    """A response is empty if no span was rejected, and otherwise has number and reasons in the request's encoding."""
    accepted, partial = OtlpBatch([]), OtlpBatch([], 3, ["no (3 spans)"])
    assert (encode_response(accepted, PROTOBUF), encode_response(accepted, JSON)) == (b"", b"{}")
    partial_success = ExportTraceServiceResponse.FromString(encode_response(partial, PROTOBUF)).partial_success
    assert (partial_success.rejected_spans, partial_success.error_message) == (3, "no (3 spans)")
    assert json.loads(encode_response(partial, f"{JSON}; charset=utf-8")) == {
        "partialSuccess": {"rejectedSpans": "3", "errorMessage": "no (3 spans)"}
    }


def test_rejections_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Rejected spans make one warning with tenant and reasons, and so does a body that is not OTLP."""
    with caplog.at_level(logging.WARNING, "handrail.traces.otlp.ingest"):
        read(protobuf(span(1), span(2, start_time_unix_nano=0), span(3, start_time_unix_nano=0)))
        with pytest.raises(InvalidOtlp):
            read(b"{", JSON)
        read(protobuf(span(1)))
    assert caplog.messages == [
        "spans rejected: the start time is missing or out of range (2 spans)",
        "request rejected: OTLP: the body is not a JSON ExportTraceServiceRequest",
    ]
    assert [(record.levelno, getattr(record, "tenant", None)) for record in caplog.records] == [
        (logging.WARNING, "acme"),
        (logging.WARNING, "acme"),
    ]
