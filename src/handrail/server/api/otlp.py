"""The OTLP/HTTP endpoint."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from handrail.server.state import app_state
from handrail.traces.otlp.ingest import decode_request, encode_response, ingest, price_lookup

from .dependencies import IngestPrincipal

router = APIRouter(prefix="/v1")

_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An OTLP ExportTraceServiceRequest, plain or compressed with gzip.",
        "content": {
            "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}, "example": {"resourceSpans": []}},
        },
    }
}


@router.post(
    "/traces", openapi_extra=_REQUEST_BODY, responses={200: {"content": {"application/x-protobuf": {}}}, 415: {}}
)
async def ingest_spans(request: Request, principal: IngestPrincipal) -> Response:
    """Ingests OpenTelemetry or OpenInference spans, which are on disk before the 200.

    Malformed spans are rejected and counted in `partial_success`; the others are stored. Sending a span again changes
    nothing. With a key of one tenant the spans belong to that tenant, whatever they say themselves.
    """
    runtime, headers = app_state(request).runtime, request.headers
    content_type = headers.get("content-type", "")
    batch = await asyncio.to_thread(
        decode_request,
        await request.body(),
        content_type,
        headers.get("content-encoding"),
        principal.tenant,
        price_lookup(runtime.settings.prices),
        runtime.telemetry.redact,
    )
    await ingest(runtime.database, batch)
    return Response(encode_response(batch, content_type), media_type=content_type.partition(";")[0].strip())
