"""The API's traces: list and read them, latency by step, cost by key."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from handrail.server.params import AfterQuery, TextQuery, TraceId, decode_cursor, encode_cursor
from handrail.server.state import app_state
from handrail.server.time_ranges import RangeName, RangeQuery, TimeRange, time_range
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.model import Span
from handrail.traces.store.rollup_queries import SpendKey, SpendRow, StepLatency
from handrail.traces.store.summaries import TraceSummary
from handrail.traces.store.trace_queries import TraceOrder, cursor_of

from .dependencies import ReadPrincipal, queries_for

router = APIRouter(prefix="/v1")


class TraceListResponse(BaseModel):
    """A page of traces. For the next page pass `next` as `after`; it is null on the last page."""

    traces: list[TraceSummary]
    next: str | None


class SpanResponse(BaseModel):
    """A span without its payload. `critical_ns` is its time on the trace's critical path."""

    span_id: str
    parent_id: str | None
    kind: str
    name: str
    start_ns: int
    end_ns: int
    critical_ns: int
    error_type: str | None
    model: str | None
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    run_id: str


class TraceResponse(BaseModel):
    """A trace with its spans, ordered by start. `missing` counts parents that are named but not stored."""

    trace: TraceSummary
    missing: int
    spans: list[SpanResponse]


@router.get("/traces")
async def list_traces(
    request: Request,
    principal: ReadPrincipal,
    tenant: TextQuery = "",
    range_: RangeQuery = "30d",
    order: Annotated[TraceOrder, Query()] = "started",
    agent: TextQuery = "",
    user: TextQuery = "",
    q: TextQuery = "",
    after: AfterQuery = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TraceListResponse:
    """Lists the traces of a range: the newest, the most expensive, the slowest, or those with most errors first.

    `q` is a part of a trace's name, or the beginning of its id. `tenant` is for keys of every tenant.
    """
    traces = await queries_for(request, principal, tenant).traces(
        _time_range(request, range_),
        order=order,
        agent=agent or None,
        user=user or None,
        text=q or None,
        limit=limit,
        after=decode_cursor(after),
    )
    following = encode_cursor(cursor_of(traces[-1], order)) if len(traces) == limit else None
    return TraceListResponse(traces=traces, next=following)


@router.get("/traces/{trace_id}")
async def read_trace(
    request: Request, principal: ReadPrincipal, trace_id: TraceId, tenant: TextQuery = ""
) -> TraceResponse:
    """Returns a trace with its spans, and the time that each of them spent on the critical path."""
    trace = await queries_for(request, principal, tenant).trace(trace_id)
    critical: dict[str, int] = {}
    for segment in critical_path(trace.spans):
        critical[segment.span.span_id] = critical.get(segment.span.span_id, 0) + segment.duration_ns
    spans = [_span_response(span, critical.get(span.span_id, 0)) for span in trace.spans]
    return TraceResponse(trace=trace.summary, missing=trace.missing, spans=spans)


@router.get("/steps")
async def read_steps(
    request: Request,
    principal: ReadPrincipal,
    tenant: TextQuery = "",
    range_: RangeQuery = "24h",
    agent: TextQuery = "",
) -> list[StepLatency]:
    """Returns the latency of each step: percentiles in nanoseconds, accurate to 2.5%.

    Ranges consist of whole hours or days.
    """
    return await queries_for(request, principal, tenant).steps(_time_range(request, range_), agent or None)


@router.get("/costs")
async def read_costs(
    request: Request,
    principal: ReadPrincipal,
    by: Annotated[SpendKey, Query()],
    tenant: TextQuery = "",
    range_: RangeQuery = "30d",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[SpendRow]:
    """Returns the spend by user, tenant, agent, model, fingerprint or day, in nano-dollars, the highest first.

    `ungoverned` is the part for which no money was held before the request.
    """
    return await queries_for(request, principal, tenant).spend(_time_range(request, range_), by, limit)


def _time_range(request: Request, name: RangeName) -> TimeRange:
    return time_range(name, app_state(request).runtime.clock.now())


def _span_response(span: Span, critical_ns: int) -> SpanResponse:
    return SpanResponse(
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=span.kind,
        name=span.name,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        critical_ns=critical_ns,
        error_type=span.error_type,
        model=span.model,
        input_tokens=span.usage.input,
        output_tokens=span.usage.output,
        cost_nano_usd=span.cost,
        run_id=span.run_id,
    )
