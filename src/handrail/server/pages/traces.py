"""The list of traces, one trace as a waterfall, and one span with its payload."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.kernel.errors import NotFound
from handrail.review.feedback import Feedback
from handrail.runs.store.queries import RunView
from handrail.server.params import AfterQuery, SpanId, TextQuery, TraceId, decode_cursor, encode_cursor
from handrail.server.time_ranges import RANGES, RangeQuery, time_range
from handrail.server.view_models.waterfall import WIDTH, json_for_script, waterfall
from handrail.traces.reports import cost_note
from handrail.traces.store.trace_queries import TraceOrder, cursor_of

from .context import PAGE_SIZE, Page, PageContext

router = APIRouter(include_in_schema=False)

INITIAL_ROWS = 100
"""Spans that are in the page itself: for the first paint, and for browsers without scripts."""
MAX_RUNS = 20


@router.get("/traces")
async def list_traces(
    page: Page,
    range_: RangeQuery = "30d",
    order: Annotated[TraceOrder, Query()] = "started",
    agent: TextQuery = "",
    user: TextQuery = "",
    q: TextQuery = "",
    after: AfterQuery = "",
) -> Response:
    """The traces that match, the newest, most expensive, slowest, or those with most errors first."""
    period = time_range(range_, page.state.runtime.clock.now())
    cursor = decode_cursor(after)
    traces = await page.queries.traces(
        period, order=order, agent=agent or None, user=user or None, text=q or None, limit=PAGE_SIZE, after=cursor
    )
    return page.render(
        "traces.html",
        traces=traces,
        query={"range": range_, "order": order, "agent": agent, "user": user, "q": q},
        ranges=RANGES,
        is_first_page=cursor is None,
        next=encode_cursor(cursor_of(traces[-1], order)) if len(traces) == PAGE_SIZE else "",
    )


@router.get("/traces/{trace_id}")
async def show_trace(page: Page, trace_id: TraceId) -> Response:
    """One trace with all of its spans, the critical path marked."""
    trace = await page.queries.trace(trace_id)
    rows = await asyncio.to_thread(waterfall, trace.spans)
    run_ids = list(dict.fromkeys(span.run_id for span in trace.spans if span.run_id))
    return page.render(
        "trace.html",
        trace=trace.summary,
        missing=trace.missing,
        rows=rows[:INITIAL_ROWS],
        total=len(rows),
        data=json_for_script({"trace": trace_id, "rows": rows}),
        width=WIDTH,
        has_waits=any(span.kind == "wait" for span in trace.spans),
        runs=await _runs(page, run_ids[:MAX_RUNS]),
        opportunities=await page.queries.parallelism(trace),
    )


@router.get("/traces/{trace_id}/spans/{span_id}")
async def show_span(page: Page, trace_id: TraceId, span_id: SpanId) -> Response:
    """One span with its payload."""
    span, payload = await page.queries.span(trace_id, span_id)
    return page.render("span.html", span=span, payload=payload or {}, cost_note=cost_note(span))


async def _runs(page: PageContext, run_ids: list[str]) -> list[tuple[RunView, Feedback | None]]:
    """The trace's governed runs, each with its newest feedback."""
    runs = []
    for run_id in run_ids:
        try:
            detail = await page.queries.run(run_id)
        except NotFound:
            # Spans that other programs sent may name a run that is not in this store.
            continue
        runs.append((detail.run, detail.feedback[0] if detail.feedback else None))
    return runs
