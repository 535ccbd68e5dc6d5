"""The steps page: how long each step takes, and where the time of the slowest traces goes."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.server.params import TextQuery
from handrail.server.time_ranges import RANGES, RangeQuery, time_range
from handrail.server.view_models.steps import StepOrder, best_opportunities, step_rows
from handrail.traces.analysis.critical_path import step_shares
from handrail.traces.reports import MAX_TRACE_SPANS, SLOWEST_TRACES

from .context import Page

router = APIRouter(include_in_schema=False)

SAMPLE = 50
"""Traces over which the shares of the critical path are computed: the slowest of the range."""
OPPORTUNITIES = 5
"""How many opportunities the page shows."""

OrderQuery = Annotated[StepOrder, Query(alias="sort")]


@router.get("/steps")
async def show_steps(
    page: Page, range_: RangeQuery = "24h", agent: TextQuery = "", order: OrderQuery = "total"
) -> Response:
    """The steps of a range."""
    period = time_range(range_, page.state.runtime.clock.now())
    latencies = await page.queries.steps(period, agent or None)
    slowest = await page.queries.traces(
        period, order="duration", agent=agent or None, user=None, text=None, limit=SAMPLE, after=None
    )
    sample = [await page.queries.trace(trace.trace_id) for trace in slowest if trace.spans <= MAX_TRACE_SPANS]
    shares = await asyncio.to_thread(step_shares, [trace.spans for trace in sample])
    opportunities = [(trace, await page.queries.parallelism(trace)) for trace in sample[:SLOWEST_TRACES]]
    return page.render(
        "steps.html",
        rows=step_rows(latencies, shares, order),
        sort=order,
        agent=agent,
        range=range_,
        ranges=RANGES,
        sample=len(sample),
        opportunities=best_opportunities(opportunities, OPPORTUNITIES),
    )
