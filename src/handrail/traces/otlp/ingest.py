"""OTLP over HTTP: a request's body becomes spans to store, and the answer says what was not taken.

    received = read_otlp(body, content_type, encoding, tenant, price)     # pure; BadOtlp, TooLarge, UnsupportedMedia
    await ingest(database, received)                                      # on disk when it returns
    return answer(received, content_type)                                 # 200, with OTLP's partial_success

`read_otlp` is work for a thread: some 10,000 spans a second of one core.
"""

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from weakref import WeakKeyDictionary

from pydantic_ai.usage import RequestUsage

from handrail.config.settings import Price
from handrail.kernel.db.database import Database
from handrail.kernel.errors import MissingExtra
from handrail.kernel.money import ZERO, NanoUsd
from handrail.models.pricing import price_of
from handrail.traces import semconv
from handrail.traces.model import Span, Usage
from handrail.traces.normalize import Finished, read_finished
from handrail.traces.recorder.redaction import Redact, unchanged
from handrail.traces.store.spans import StoreSpans

from .json_decoder import spans_of_json
from .protobuf_decoder import spans_of_protobuf
from .validation import MOST_BYTES, BadOtlp, Malformed, TooLarge, UnsupportedMedia

PriceOf: TypeAlias = Callable[[str, str | None, Usage], NanoUsd | None]
"""What a request to a model (name, provider) cost, or None where nobody knows its price."""

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
BATCH = 128
"""Spans that are written together: some 10 ms on SQLite, the longest that others wait behind them."""
_REASONS = 10
_TENANT = "default"

# OpenTelemetry's names of providers, where the price table has others.
_PROVIDERS: Mapping[str, str] = {
    "aws.bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "vertex_ai": "google",
    "vertexai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}


@dataclass(frozen=True)
class Received:
    """One request: the spans to store, how many were none, and why."""

    spans: Sequence[Span]
    rejected: int = 0
    problems: Sequence[str] = ()


def prices(own: Mapping[str, Price]) -> PriceOf:
    """The price table's prices, the operator's `own` first."""

    def price(model: str, provider: str | None, usage: Usage) -> NanoUsd | None:
        tokens = RequestUsage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
        )
        name = provider and _PROVIDERS.get(provider.lower(), provider.lower())
        return price_of(model, name, tokens, own)

    return price


def read_otlp(
    body: bytes,
    content_type: str,
    encoding: str | None,
    tenant: str | None,
    price: PriceOf,
    redact: Redact = unchanged,
) -> Received:
    """The spans in an OTLP request's body, priced and redacted, and how many in it were none.

    They are `tenant`'s, whatever they say; with None (an operator's key) each is of the tenant it names, else of
    `default`. Raises UnsupportedMedia, TooLarge, BadOtlp, and MissingExtra where protobuf cannot be read here.
    """
    read = _reader(content_type)
    spans: list[Span] = []
    reasons: Counter[str] = Counter()
    for item in read(_unpacked(body, encoding)):
        if isinstance(item, Malformed):
            reasons[str(item)] += 1
        else:
            spans.append(redact(_priced(_of_tenant(read_finished(item), tenant), price)))
    problems = [f"{count} of the spans: {reason}" for reason, count in reasons.most_common(_REASONS)]
    return Received(spans, reasons.total(), problems)


def answer(received: Received, content_type: str) -> bytes:
    """The body of the 200, in the request's encoding; it names rejected spans where there are any."""
    message = "; ".join(received.problems)
    if _media(content_type) == JSON:
        partial = {"rejectedSpans": str(received.rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if received.rejected else {}).encode()
    if not received.rejected:
        return b""
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    except ModuleNotFoundError:
        raise MissingExtra("reading OTLP", "server") from None
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = received.rejected
    response.partial_success.error_message = message
    return bytes(response.SerializeToString())


async def ingest(database: Database, received: Received) -> int:
    """Stores what was received, and says how many of the spans were new; all of it is on disk when it returns.

    Raises StoreError; then some of it may be stored, and sending it again changes nothing about that.
    """
    new = 0
    for start in range(0, len(received.spans), BATCH):
        store = await asyncio.to_thread(StoreSpans, received.spans[start : start + BATCH])
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            [stored] = await database.write(store)
        new += stored
    return new


# One batch at a time in each server, so that a hold waits behind one and not behind one of every sender.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _reader(content_type: str) -> Callable[[bytes], Iterator[Finished | Malformed]]:
    match _media(content_type):
        case "application/x-protobuf" | "application/protobuf":
            return spans_of_protobuf
        case "application/json":
            return spans_of_json
    raise UnsupportedMedia(f"OTLP: the content type is to be {PROTOBUF} or {JSON}")


def _unpacked(body: bytes, encoding: str | None) -> bytes:
    match (encoding or "identity").strip().lower():
        case "identity":
            unpacked = body
        case "gzip":
            unpacked = _gunzipped(body)
        case _:
            raise UnsupportedMedia("OTLP: the content encoding is to be gzip, or none")
    if len(unpacked) > MOST_BYTES:
        raise TooLarge(f"OTLP: more than {MOST_BYTES:,} bytes in one request; send smaller batches")
    return unpacked


def _gunzipped(body: bytes) -> bytes:
    """At most a byte more than a request may have is ever unpacked."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacking.decompress(body, MOST_BYTES + 1)
    except zlib.error:
        raise BadOtlp("OTLP: the body is not gzip, although its encoding says so") from None
    if len(unpacked) <= MOST_BYTES and not unpacking.eof:
        raise BadOtlp("OTLP: the body's gzip ends too early; was it cut off?")
    return unpacked


def _of_tenant(span: Span, tenant: str | None) -> Span:
    if tenant is None:
        return span if span.tenant else replace(span, tenant=_TENANT)
    if span.tenant in ("", tenant):
        return replace(span, tenant=tenant)
    return replace(span, tenant=tenant, attributes={**span.attributes, semconv.TENANT: span.tenant})


def _priced(span: Span, price: PriceOf) -> Span:
    """With our own price of a model request; what its sender says it cost stays beside it, and stands in for it."""
    if span.kind != "model":
        return span
    reported = span.reported_cost if span.reported_cost is not None else (span.cost or None)
    ours = None
    if span.model and span.usage != Usage():
        ours = price(span.model, span.provider, span.usage)
        if ours is None:
            span = replace(span, attributes={**span.attributes, semconv.PRICE_UNKNOWN: True})
    cost = ours if ours is not None else reported
    return replace(span, cost=ZERO if cost is None else cost, reported_cost=reported)
