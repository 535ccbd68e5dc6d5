"""The API's answers about traces: which there are, what is in one, how long steps take, who and what costs how much."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from handrail.server.auth import Visitor, program
from handrail.server.params import After, TraceId, Word, read_place, show_place
from handrail.server.queries import Range, Reads, SpendKey
from handrail.server.state import site_of
from handrail.server.time_ranges import InRange, range_of
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.model import Span
from handrail.traces.store.queries import Order, SpendRow, StepLatency, place_of
from handrail.traces.store.summaries import TraceSummary

router = APIRouter(prefix="/v1")

Reader = Annotated[Visitor, Depends(program("read"))]


class TraceList(BaseModel):
    """A page of traces; `next` goes into `after` for the page after it, None at the end."""

    traces: list[TraceSummary]
    next: str | None


class SpanSeen(BaseModel):
    """A span, what was said in it left out. `critical_ns` is its time on the trace's critical path."""

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


class TraceSeen(BaseModel):
    """A trace and its spans in the order they began; `missing` spans are named as parents and are not there."""

    trace: TraceSummary
    missing: int
    spans: list[SpanSeen]


@router.get("/traces")
async def read_traces(
    request: Request,
    visitor: Reader,
    tenant: Word = "",
    range_: InRange = "30d",
    order: Annotated[Order, Query()] = "started",
    agent: Word = "",
    user: Word = "",
    q: Word = "",
    after: After = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TraceList:
    """The newest, dearest, longest or most faulty traces of a range.

    `q` is a part of a trace's name, or the beginning of its id. `tenant` is for keys of every tenant.
    """
    reads, chosen = _asked(request, visitor, tenant, range_)
    found = await reads.traces(
        chosen,
        order=order,
        agent=agent or None,
        user=user or None,
        text=q or None,
        limit=limit,
        after=read_place(after),
    )
    more = show_place(place_of(found[-1], order)) if len(found) == limit else None
    return TraceList(traces=found, next=more)


@router.get("/traces/{trace_id}")
async def read_trace(request: Request, visitor: Reader, trace_id: TraceId, tenant: Word = "") -> TraceSeen:
    """One trace, with what it waited for."""
    found = await _asked(request, visitor, tenant, "24h")[0].trace(trace_id)
    critical: dict[str, int] = {}
    for segment in critical_path(found.spans):
        critical[segment.span.span_id] = critical.get(segment.span.span_id, 0) + segment.duration_ns
    spans = [_seen(span, critical.get(span.span_id, 0)) for span in found.spans]
    return TraceSeen(trace=found.summary, missing=found.missing, spans=spans)


@router.get("/steps")
async def read_steps(
    request: Request, visitor: Reader, tenant: Word = "", range_: InRange = "24h", agent: Word = ""
) -> list[StepLatency]:
    """How long each step took: percentiles in nanoseconds, each at most 2.5% off. Ranges are of whole hours or days."""
    reads, chosen = _asked(request, visitor, tenant, range_)
    return await reads.steps(chosen, agent or None)


@router.get("/costs")
async def read_costs(
    request: Request,
    visitor: Reader,
    by: Annotated[SpendKey, Query()],
    tenant: Word = "",
    range_: InRange = "30d",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[SpendRow]:
    """Who or what the money went to, in nano-dollars, the dearest first.

    `ungoverned` is the part that nobody held money for beforehand.
    """
    reads, chosen = _asked(request, visitor, tenant, range_)
    return await reads.spend(chosen, by, limit)


def _asked(request: Request, visitor: Visitor, tenant: str, range_: InRange) -> tuple[Reads, Range]:
    """What the caller sees: where it is more than one tenant, of the one that they named."""
    runtime = site_of(request).runtime
    seen = visitor.tenant if visitor.tenant is not None else tenant or None
    return Reads(runtime, seen), range_of(range_, runtime.clock.now())


def _seen(span: Span, critical_ns: int) -> SpanSeen:
    return SpanSeen(
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
