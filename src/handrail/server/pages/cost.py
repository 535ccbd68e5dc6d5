"""The cost page: spend by key, the most expensive traces and what they have in common, and waste."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.server.time_ranges import RANGES, RangeQuery, time_range
from handrail.traces.store.rollup_queries import SpendKey

from .context import PAGE_SIZE, Page

router = APIRouter(include_in_schema=False)

KEYS: tuple[SpendKey, ...] = ("agent", "user", "tenant", "model", "fingerprint", "day")
EXPENSIVE_TRACES = 10


@router.get("/cost")
async def show_cost(
    page: Page, range_: RangeQuery = "30d", key: Annotated[SpendKey, Query(alias="by")] = "agent"
) -> Response:
    """The cost of a range by one key."""
    period = time_range(range_, page.state.runtime.clock.now())
    rows = await page.queries.spend(period, key, PAGE_SIZE)
    traces = await page.queries.traces(
        period, order="cost", agent=None, user=None, text=None, limit=EXPENSIVE_TRACES, after=None
    )
    concentration, drivers = await page.queries.cost_concentration(period)
    waste, analysed = await page.queries.waste(period)
    return page.render(
        "cost.html",
        rows=rows,
        highest=max((row.cost for row in rows), default=0),
        total=sum(row.cost for row in rows),
        concentration=concentration,
        drivers=drivers,
        waste=waste,
        analysed=analysed,
        traces=[trace for trace in traces if trace.cost],
        by=key,
        keys=KEYS,
        range=range_,
        ranges=RANGES,
    )
