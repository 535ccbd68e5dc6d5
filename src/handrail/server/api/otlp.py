"""The API's way in for spans: OTLP over HTTP, on disk before the 200."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from handrail.server.auth import Visitor, program
from handrail.server.state import site_of
from handrail.traces.otlp.ingest import answer, ingest, prices, read_otlp

router = APIRouter(prefix="/v1")

_SPANS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An ExportTraceServiceRequest of OTLP, plain or with gzip.",
        "content": {
            "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}, "example": {"resourceSpans": []}},
        },
    }
}


@router.post("/traces", openapi_extra=_SPANS, responses={200: {"content": {"application/x-protobuf": {}}}, 415: {}})
async def take_spans(request: Request, visitor: Annotated[Visitor, Depends(program("ingest"))]) -> Response:
    """Takes spans of OpenTelemetry or OpenInference. Those that are malformed are counted in the answer, the others
    are kept; sending a span again changes nothing. A key's spans are its tenant's, whatever they say.
    """
    runtime, headers = site_of(request).runtime, request.headers
    kind = headers.get("content-type", "")
    received = await asyncio.to_thread(
        read_otlp,
        await request.body(),
        kind,
        headers.get("content-encoding"),
        visitor.tenant,
        prices(runtime.settings.prices),
        runtime.telemetry.redact,
    )
    await ingest(runtime.database, received)
    return Response(answer(received, kind), media_type=kind.partition(";")[0].strip())
