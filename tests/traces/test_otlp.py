"""OTLP's requests, read: what is a span is kept, what is none is counted, and nothing brings the reading down."""

import gzip
import json
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from handrail.config.settings import Price
from handrail.kernel.money import NanoUsd
from handrail.traces import semconv
from handrail.traces.model import Span, Usage
from handrail.traces.otlp.ingest import Received, answer, prices, read_otlp
from handrail.traces.otlp.validation import MOST_BYTES, MOST_SPAN_BYTES, MOST_SPANS, BadOtlp, TooLarge, UnsupportedMedia
from handrail.traces.recorder.redaction import redacting
from tests.traces.otlp_samples import JSON, PROTOBUF, START, as_json, protobuf, request, span
from tests.traces.test_normalize import attributes_in_any_dialect

Encode = Callable[..., bytes]
BOTH = pytest.mark.parametrize(("encode", "media"), [(protobuf, PROTOBUF), (as_json, JSON)])

VALUES = {"text": "é", "whole": -(2**63), "part": 0.5, "yes": True, "list": ["a", 1], "map": {"a": {"b": 2}}}


def unknown(_model: str, _provider: str | None, _usage: Usage) -> NanoUsd | None:
    return None


def read(body: bytes, media: str = PROTOBUF, encoding: str | None = None, **changed: Any) -> Received:
    given_: dict[str, Any] = {"tenant": "acme", "price": unknown, **changed}
    return read_otlp(body, media, encoding, **given_)


def only(body: bytes, media: str = PROTOBUF, **changed: Any) -> Span:
    [found] = read(body, media, **changed).spans
    return found


@BOTH
def test_a_span_as_it_was_sent(encode: Encode, media: str) -> None:
    """Ids, times, the parent, attributes of every type, events, links and the status are read from either encoding."""
    sent = span(
        parent_span_id=bytes([1] * 8),
        attributes={**VALUES, "bytes": b"\x01\xff"},
        events=[OtlpSpan.Event(name="hit", time_unix_nano=START + 5)],
        links=[OtlpSpan.Link(trace_id=bytes([2] * 16), span_id=bytes([3] * 8))],
        status=Status(code=Status.STATUS_CODE_ERROR, message="it broke"),
    )
    found = only(encode(sent), media)
    assert (found.trace_id, found.span_id, found.parent_id) == ("07" * 16, "0000000000000001", "01" * 8)
    assert (found.name, found.start_ns, found.end_ns, found.error_type) == ("span 1", START, START + 10**9, "error")
    assert found.attributes == {
        **VALUES,
        "bytes": "01ff",
        semconv.LINKS: [{"trace_id": "02" * 16, "span_id": "03" * 8}],
    }
    assert found.payload == {"events": [{"name": "hit", "time_ns": START + 5, "attributes": {}}], "error": "it broke"}


@given(attributes_in_any_dialect)
def test_both_encodings_say_the_same(attributes: dict[str, Any]) -> None:
    """A span in any dialect is read the same from protobuf and from JSON."""
    sent = span(attributes=attributes)
    assert read(protobuf(sent)) == read(as_json(sent), JSON)


def test_json_as_some_programs_write_it() -> None:
    """Keys in snake_case, numbers as numbers and upper-case ids are read, too; odd doubles by their names."""
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
    found = only(json.dumps(body).encode(), JSON)
    assert (found.trace_id, found.span_id, found.name) == ("ab" * 16, "cd" * 8, "")
    assert found.attributes == {"n": 7, "x": "nan", "y": None}


@pytest.mark.parametrize("media", [f"{PROTOBUF}; charset=utf-8", "application/protobuf", "APPLICATION/X-PROTOBUF"])
def test_media_types(media: str) -> None:
    """A media type is read without its parameters, in any case."""
    assert len(read(protobuf(span()), media).spans) == 1


def test_what_is_not_read() -> None:
    """Other media types and packings are UnsupportedMedia."""
    for media, encoding in (("text/plain", None), ("", None), (PROTOBUF, "br")):
        with pytest.raises(UnsupportedMedia):
            read(protobuf(span()), media, encoding)


@BOTH
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"trace_id": b"short"}, "trace id|traceId"),
        ({"trace_id": bytes(16)}, "zeros"),
        ({"span_id": b""}, "span id|spanId"),
        ({"span_id": bytes(8)}, "zeros"),
        ({"parent_span_id": b"abc"}, "parent"),
        ({"start_time_unix_nano": 0}, "start time"),
        ({"end_time_unix_nano": 0}, "end time"),
        ({"end_time_unix_nano": 2**63}, "end time"),
        ({"end_time_unix_nano": START - 2 * 10**9}, "ends before it begins"),
    ],
)
def test_one_malformed_span(encode: Encode, media: str, broken: Mapping[str, Any], reason: str) -> None:
    """A span that is none is counted with its reason, and the others of its request are kept."""
    received = read(encode(span(1), span(2, **broken), span(3)), media)
    assert [each.name for each in received.spans] == ["span 1", "span 3"]
    assert received.rejected == 1
    [problem] = received.problems
    assert any(part in problem for part in reason.split("|"))


@BOTH
def test_a_clock_that_was_set(encode: Encode, media: str) -> None:
    """A span that ends up to a second before it begins took no time."""
    assert only(encode(span(end_time_unix_nano=START - 10**9)), media).duration_ns == 0


def test_text_that_is_none() -> None:
    """A span whose text was cut in the middle of a character, as some senders do, is counted alone."""
    body = protobuf(span(1), span(2, {"note": "xyz"}), span(3)).replace(b"xyz", b"xy\xc3")
    received = read(body)
    assert ([each.name for each in received.spans], received.rejected) == (["span 1", "span 3"], 1)


def test_a_span_of_the_wrong_types() -> None:
    """JSON of other types than OTLP's is a malformed span wherever it is in the span."""
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
def test_json_that_is_no_request(body: bytes) -> None:
    """A body that is not a request in JSON is BadOtlp as a whole."""
    with pytest.raises(BadOtlp):
        read(body, JSON)


@pytest.mark.parametrize("body", [b"\x0b", b"\x0a\x05abc", b"\xff" * 20, b"\x0a", b'{"resourceSpans": []}'])
def test_protobuf_that_is_no_request(body: bytes) -> None:
    """A body that is not a request in protobuf is BadOtlp as a whole."""
    with pytest.raises(BadOtlp):
        read(body)


def test_fields_of_the_future() -> None:
    """Fields that this version does not know are passed over, of every wire type."""
    unknown_fields = b"\xf8\x01\x96\x01" + b"\xf9\x01" + bytes(8) + b"\xfa\x01\x03abc" + b"\xfd\x01" + bytes(4)
    assert len(read(unknown_fields + protobuf(span()) + unknown_fields).spans) == 1


@BOTH
def test_an_empty_request(encode: Encode, media: str) -> None:
    """A request without spans is one, and takes nothing."""
    assert read(encode(), media) == Received([], 0, [])


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON]), st.sampled_from([None, "gzip"]))
def test_any_bytes(body: bytes, media: str, encoding: str | None) -> None:
    """Whatever the bytes, they are read or refused."""
    try:
        read(body, media, encoding)
    except (BadOtlp, TooLarge):
        return


_bodies = {
    PROTOBUF: protobuf(*(span(n, {"gen_ai.operation.name": "chat", "list": ["a", {"b": 1.5}]}) for n in range(1, 5))),
    JSON: as_json(*(span(n, {"gen_ai.operation.name": "chat", "list": ["a", {"b": 1.5}]}) for n in range(1, 5))),
}


@given(st.sampled_from([PROTOBUF, JSON]), st.data())
def test_a_damaged_request(media: str, data: st.DataObject) -> None:
    """Bytes changed or cut off anywhere lead to a refusal, or to spans that are spans."""
    body = bytearray(_bodies[media])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        received = read(bytes(body[: data.draw(st.integers(0, len(body)))]), media)
    except (BadOtlp, TooLarge):
        return
    assert all(len(each.trace_id) == 32 and 0 < each.start_ns <= each.end_ns for each in received.spans)


_faults: list[dict[str, Any]] = [{"trace_id": b"x"}, {"span_id": bytes(8)}, {"start_time_unix_nano": 0}]


@given(st.lists(st.none() | st.sampled_from(_faults), max_size=30), st.booleans())
def test_every_span_is_kept_or_counted(faults: list[dict[str, Any] | None], in_json: bool) -> None:
    """In any mixture of good and bad spans, the good ones are kept in order and the bad ones counted exactly."""
    spans = [span(n, **(fault or {})) for n, fault in enumerate(faults, 1)]
    received = read(as_json(*spans), JSON) if in_json else read(protobuf(*spans))
    assert [each.name for each in received.spans] == [f"span {n}" for n, fault in enumerate(faults, 1) if not fault]
    assert received.rejected == sum(fault is not None for fault in faults)


def test_gzip() -> None:
    """A packed body is the same request; one that is cut off or no gzip is BadOtlp."""
    body = protobuf(span())
    packed = gzip.compress(body)
    assert read(packed, PROTOBUF, "gzip") == read(body)
    for wrong in (body, packed[:-9], b""):
        with pytest.raises(BadOtlp):
            read(wrong, PROTOBUF, "gzip")


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    """A packed body of 200 MB is refused with no more memory than a few requests may have."""
    bomb = gzip.compress(bytes(10 * MOST_BYTES))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            read(bomb, PROTOBUF, "gzip")
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BYTES
    finally:
        tracemalloc.stop()


def test_sizes() -> None:
    """A request of too many bytes or spans is TooLarge; a span of too many bytes is malformed by itself."""
    with pytest.raises(TooLarge):
        read(bytes(MOST_BYTES + 1))
    empty_spans = b"\x12\x00" * (MOST_SPANS + 1)
    scope_spans = b"\x12" + _varint(len(empty_spans)) + empty_spans
    with pytest.raises(TooLarge):
        read(b"\x0a" + _varint(len(scope_spans)) + scope_spans)
    spread = request([])
    for _ in range(2):
        spread.resource_spans.add().scope_spans.add().spans.extend([OtlpSpan()] * (MOST_SPANS // 2 + 1))
    with pytest.raises(TooLarge):
        read(spread.SerializeToString())
    received = read(protobuf(span(1), span(2, {"note": "x" * MOST_SPAN_BYTES})))
    assert (len(received.spans), received.rejected) == (1, 1)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


@BOTH
def test_the_keys_tenant(encode: Encode, media: str) -> None:
    """Spans are of the tenant whose key sent them, whatever they say; what they say is kept."""
    assert only(encode(span(), resource={"tenant.id": "acme"}), media).attributes == {}
    foreign = only(encode(span(attributes={"tenant.id": "other"})), media)
    assert (foreign.tenant, foreign.attributes) == ("acme", {"tenant.id": "other"})


def test_an_operators_key() -> None:
    """With a key of no tenant, a span is of the tenant that it names, or its program does, or of `default`."""
    spans = [span(1), span(2, {"tenant.id": "other"})]
    assert [each.tenant for each in read(protobuf(*spans), tenant=None).spans] == ["default", "other"]
    described = read(protobuf(*spans, resource={"tenant.id": "program"}), tenant=None)
    assert [each.tenant for each in described.spans] == ["program", "other"]


def test_what_is_kept_of_a_program() -> None:
    """Of a program's description its name and version are kept with each span, and its scope; the rest is not."""
    found = request([span()], {"service.name": "shop", "service.version": "2", "process.pid": 7})
    found.resource_spans[0].scope_spans[0].scope.name = "openinference.openai"
    kept = {"service.name": "shop", "service.version": "2", "otel.scope.name": "openinference.openai"}
    assert only(found.SerializeToString()).attributes == kept


def test_prices() -> None:
    """A model request costs what the price table says; what its sender says stays beside it."""
    own = {"small": Price(input=1, output=10, cache_read=0.1)}
    used = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 500,
    }
    found = only(protobuf(span(attributes={**used, "gen_ai.usage.cost": 0.5})), price=prices(own))
    assert (found.cost, found.reported_cost) == (1_550_000, 500_000_000)
    assert only(protobuf(span(attributes=used)), price=prices(own)).reported_cost is None


def test_a_model_without_a_price() -> None:
    """Where nobody knows the price, what the sender says counts, and the span says that its price is unknown."""
    used = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "secret", "gen_ai.usage.input_tokens": 1_000}
    found = only(protobuf(span(attributes={**used, "gen_ai.usage.cost": 0.5})))
    assert (found.cost, found.attributes[semconv.PRICE_UNKNOWN]) == (500_000_000, True)
    assert only(protobuf(span(attributes=used))).cost == 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("gcp.gemini", "gemini-2.5-flash"),
    ],
)
def test_providers_by_the_conventions_names(provider: str, model: str) -> None:
    """The price table is asked for a provider by its own name, where the conventions have another."""
    found = prices({})(model, provider, Usage(input=1_000))
    assert found is not None
    assert found > 0


def test_only_requests_cost() -> None:
    """A sum on an agent's span has no price, so that nothing is counted twice."""
    summed = {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 9}
    assert only(protobuf(span(attributes=summed)), price=prices({})).cost == 0


def test_redaction_comes_first() -> None:
    """What is received has gone through the operator's redaction."""
    redact = redacting(lambda found: dict.fromkeys(found, "gone"))
    found = only(protobuf(span(attributes={"mail": "ann@example.com", "input.value": "hi"})), redact=redact)
    assert (found.attributes, found.payload) == ({"mail": "gone"}, {"input": "gone"})


def test_answers() -> None:
    """The answer is empty where all was taken; else it counts what was not and says why, in the request's encoding."""
    whole, part = Received([]), Received([], 3, ["3 of the spans: no"])
    assert (answer(whole, PROTOBUF), answer(whole, JSON)) == (b"", b"{}")
    told = ExportTraceServiceResponse.FromString(answer(part, PROTOBUF)).partial_success
    assert (told.rejected_spans, told.error_message) == (3, "3 of the spans: no")
    assert json.loads(answer(part, f"{JSON}; charset=utf-8")) == {
        "partialSuccess": {"rejectedSpans": "3", "errorMessage": "3 of the spans: no"}
    }
