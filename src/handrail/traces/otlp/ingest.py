"""OTLP over HTTP: stores the spans in a request's body, and responds with how many were rejected and why.

    batch = decode_request(body, content_type, encoding, tenant, price)   # CPU-bound, no I/O: run it in a thread
    await ingest(database, batch)                                         # the spans are on disk when it returns
    return encode_response(batch, content_type)                           # 200, with OTLP's partial_success

`decode_request` takes about 100 microseconds of one core for each span.
"""

import asyncio
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from weakref import WeakKeyDictionary

from pydantic_ai.usage import RequestUsage

from handrail.config.settings import PriceOverride
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, MissingExtra
from handrail.kernel.money import ZERO, NanoUsd
from handrail.models.pricing import quote
from handrail.traces import semconv
from handrail.traces.model import RawSpan, Span, Usage
from handrail.traces.normalize import normalize_span
from handrail.traces.recorder.redaction import Redact, no_redaction
from handrail.traces.store.spans import SpanBatch

from .json_decoder import decode_json
from .protobuf_decoder import decode_protobuf
from .validation import MAX_REQUEST_BYTES, InvalidOtlp, OtlpTooLarge, RejectedSpan, UnsupportedOtlpMedia

PriceLookup: TypeAlias = Callable[[str, str | None, Usage], NanoUsd | None]
"""The cost of a request, from the model's name, its provider and the tokens used; None if its price is unknown."""

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
WRITE_BATCH_SPANS = 128
"""Spans written in one transaction: about 10 ms on SQLite, which is how long a run may wait for it."""
_MAX_REASONS = 10
_DEFAULT_TENANT = "default"

_logger = logging.getLogger(__name__)

# Providers whose name in OpenTelemetry differs from that in the price table.
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
class OtlpBatch:
    """One decoded request: the spans to store, the number rejected, and each reason with its count."""

    spans: Sequence[Span]
    rejected: int = 0
    reasons: Sequence[str] = ()


def price_lookup(overrides: Mapping[str, PriceOverride]) -> PriceLookup:
    """Returns a function that looks prices up in the operator's `overrides`, then in the price table."""

    def price(model: str, provider: str | None, usage: Usage) -> NanoUsd | None:
        tokens = RequestUsage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
        )
        name = provider and _PROVIDERS.get(provider.lower(), provider.lower())
        found = quote(model, name, {}, overrides)
        return None if found is None else found.cost(tokens)

    return price


def decode_request(
    body: bytes,
    content_type: str,
    encoding: str | None,
    tenant: str | None,
    price: PriceLookup,
    redact: Redact = no_redaction,
) -> OtlpBatch:
    """Decodes a request's body into spans that are priced, redacted and assigned to a tenant.

    Args:
        body: The body as it was sent, at most MAX_REQUEST_BYTES when decompressed.
        content_type: OTLP's protobuf or JSON.
        encoding: The content encoding: gzip, or none.
        tenant: The tenant of the sender's key, to which all spans belong whatever tenant they name. With None (an
            operator's key) each span belongs to the tenant it names, else to `default`.
        price: The price of a model request.
        redact: The operator's redaction, applied to every span.

    Raises:
        UnsupportedOtlpMedia: The content type or encoding is not supported.
        OtlpTooLarge: The body or the number of spans exceeds its limit.
        InvalidOtlp: The body is not OTLP.
        MissingExtra: The packages that decode protobuf are not installed.
    """
    try:
        batch = _decode(body, content_type, encoding, lambda span: redact(_priced(_assigned(span, tenant), price)))
    except BadInput as error:
        _logger.warning("request rejected: %s", error, extra={"tenant": tenant, "code": error.code})
        raise
    if batch.rejected:
        _logger.warning("spans rejected: %s", "; ".join(batch.reasons), extra={"tenant": tenant})
    return batch


def encode_response(batch: OtlpBatch, content_type: str) -> bytes:
    """The body of the response (status 200), in the request's encoding; rejected spans are in `partial_success`.

    Raises:
        MissingExtra: The packages that encode protobuf are not installed.
    """
    message = "; ".join(batch.reasons)
    if _media(content_type) == JSON:
        partial = {"rejectedSpans": str(batch.rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if batch.rejected else {}).encode()
    if not batch.rejected:
        return b""
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    except ModuleNotFoundError:
        raise MissingExtra("reading OTLP", "server") from None
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = batch.rejected
    response.partial_success.error_message = message
    return bytes(response.SerializeToString())


async def ingest(database: Database, batch: OtlpBatch) -> int:
    """Stores a request's spans in several transactions; all of them are on disk when it returns.

    Returns:
        The number of spans that were new; spans that were stored before are ignored.

    Raises:
        StoreError: A write failed. Some of the spans may be stored; sending the request again stores the rest.
    """
    new = 0
    for start in range(0, len(batch.spans), WRITE_BATCH_SPANS):
        operation = await asyncio.to_thread(SpanBatch, batch.spans[start : start + WRITE_BATCH_SPANS])
        async with _write_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            [stored] = await database.write(operation)
        new += stored
    return new


# One transaction of received spans at a time in each server: a run's hold then waits for at most one of them, not for
# one of every sender. Locks belong to an event loop, and tests and embedding programs may have several.
_write_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _decode(body: bytes, content_type: str, encoding: str | None, finish: Callable[[Span], Span]) -> OtlpBatch:
    decode = _decoder(content_type)
    spans: list[Span] = []
    reasons: Counter[str] = Counter()
    for item in decode(_decompressed(body, encoding)):
        if isinstance(item, RejectedSpan):
            reasons[str(item)] += 1
        else:
            spans.append(finish(normalize_span(item)))
    reasons_with_counts = [
        f"{reason} ({count} {'span' if count == 1 else 'spans'})" for reason, count in reasons.most_common(_MAX_REASONS)
    ]
    return OtlpBatch(spans, reasons.total(), reasons_with_counts)


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _decoder(content_type: str) -> Callable[[bytes], Iterator[RawSpan | RejectedSpan]]:
    match _media(content_type):
        case "application/x-protobuf" | "application/protobuf":
            return decode_protobuf
        case "application/json":
            return decode_json
    raise UnsupportedOtlpMedia(f"OTLP: the content type must be {PROTOBUF} or {JSON}")


def _decompressed(body: bytes, encoding: str | None) -> bytes:
    match (encoding or "identity").strip().lower():
        case "identity":
            content = body
        case "gzip":
            content = _gunzipped(body)
        case _:
            raise UnsupportedOtlpMedia("OTLP: the content encoding must be gzip or absent")
    if len(content) > MAX_REQUEST_BYTES:
        raise OtlpTooLarge(f"OTLP: the request is larger than {MAX_REQUEST_BYTES:,} bytes; send smaller batches")
    return content


def _gunzipped(body: bytes) -> bytes:
    # One byte beyond the limit is enough to reject the body; a gzip bomb is never unpacked further.
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = decompressor.decompress(body, MAX_REQUEST_BYTES + 1)
    except zlib.error:
        raise InvalidOtlp("OTLP: the content encoding is gzip, but the body is not") from None
    if len(content) <= MAX_REQUEST_BYTES and not decompressor.eof:
        raise InvalidOtlp("OTLP: the gzip body is incomplete; it may have been cut off")
    return content


def _assigned(span: Span, tenant: str | None) -> Span:
    """The span with its tenant; if it names another one, that is kept as an attribute."""
    if tenant is None:
        return span if span.tenant else replace(span, tenant=_DEFAULT_TENANT)
    if span.tenant in ("", tenant):
        return replace(span, tenant=tenant)
    return replace(span, tenant=tenant, attributes={**span.attributes, semconv.TENANT: span.tenant})


def _priced(span: Span, price: PriceLookup) -> Span:
    """A model request with its cost by our prices, or without them the reported cost, which is kept in any case."""
    if span.kind != "model":
        return span
    reported = span.reported_cost if span.reported_cost is not None else (span.cost or None)
    own_cost = None
    if span.model and span.usage != Usage():
        own_cost = price(span.model, span.provider, span.usage)
        if own_cost is None:
            span = replace(span, attributes={**span.attributes, semconv.PRICE_UNKNOWN: True})
    cost = own_cost if own_cost is not None else reported
    return replace(span, cost=ZERO if cost is None else cost, reported_cost=reported)
