"""The traces of a range, one trace as a waterfall, and what was said in one of its spans."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.kernel.errors import NotFound
from handrail.review.feedback import Verdict
from handrail.runs.store.runs import RunView
from handrail.server.params import After, SpanId, TraceId, Word, read_place, show_place
from handrail.server.time_ranges import RANGES, InRange, range_of
from handrail.server.view_models.waterfall import WIDTH, as_data, waterfall
from handrail.traces.store.queries import Order, place_of

from .context import PAGE, Look, Looking

router = APIRouter(include_in_schema=False)

ORDERS: tuple[Order, ...] = ("started", "cost", "duration", "errors")
FIRST_ROWS = 100
"""Rows that stand in the page itself, for a first look and for browsers without scripts."""
MOST_RUNS = 20


@router.get("/traces")
async def list_(
    look: Looking,
    range_: InRange = "30d",
    order: Annotated[Order, Query()] = "started",
    agent: Word = "",
    user: Word = "",
    q: Word = "",
    after: After = "",
) -> Response:
    """The traces that match, the newest, dearest, longest or most faulty first."""
    chosen = range_of(range_, look.site.runtime.clock.now())
    place = read_place(after)
    found = await look.reads.traces(
        chosen, order=order, agent=agent or None, user=user or None, text=q or None, limit=PAGE, after=place
    )
    return look.page(
        "traces.html",
        traces=found,
        orders=ORDERS,
        query={"range": range_, "order": order, "agent": agent, "user": user, "q": q},
        ranges=RANGES,
        later=place is not None,
        next=show_place(place_of(found[-1], order)) if len(found) == PAGE else "",
    )


@router.get("/traces/{trace_id}")
async def show(look: Looking, trace_id: TraceId) -> Response:
    """One trace: every span in its place, the critical path marked."""
    found = await look.reads.trace(trace_id)
    rows = await asyncio.to_thread(waterfall, found.spans)
    run_ids = list(dict.fromkeys(span.run_id for span in found.spans if span.run_id))
    return look.page(
        "trace.html",
        trace=found.summary,
        missing=found.missing,
        rows=rows[:FIRST_ROWS],
        total=len(rows),
        data=as_data({"trace": trace_id, "rows": rows}),
        width=WIDTH,
        waits=any(span.kind == "wait" for span in found.spans),
        runs=await _runs(look, run_ids[:MOST_RUNS]),
        findings=await look.reads.findings(found),
    )


@router.get("/traces/{trace_id}/spans/{span_id}")
async def show_span(look: Looking, trace_id: TraceId, span_id: SpanId) -> Response:
    """One span, with what was said in it."""
    span, said = await look.reads.said(trace_id, span_id)
    return look.page("span.html", span=span, said=said or {})


async def _runs(look: Look, run_ids: list[str]) -> list[tuple[RunView, Verdict | None]]:
    """The trace's governed runs, each with the verdict that counts; a run id from elsewhere may be nobody's."""
    found = []
    for run_id in run_ids:
        try:
            story = await look.reads.story(run_id)
        except NotFound:
            continue
        found.append((story.run, story.verdicts[0] if story.verdicts else None))
    return found
