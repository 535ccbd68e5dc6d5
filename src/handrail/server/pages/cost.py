"""Who and what the money goes to, and how few traces make most of it."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.server.queries import SpendKey
from handrail.server.time_ranges import RANGES, InRange, range_of

from .context import PAGE, Looking

router = APIRouter(include_in_schema=False)

KEYS: tuple[SpendKey, ...] = ("agent", "user", "tenant", "model", "fingerprint", "day")


@router.get("/cost")
async def show(
    look: Looking, range_: InRange = "30d", key: Annotated[SpendKey, Query(alias="by")] = "agent"
) -> Response:
    """The spend of a range by one key, its dearest traces, and what sets them apart."""
    chosen = range_of(range_, look.site.runtime.clock.now())
    rows = await look.reads.spend(chosen, key, PAGE)
    dearest = await look.reads.traces(chosen, order="cost", agent=None, user=None, text=None, limit=10, after=None)
    return look.page(
        "cost.html",
        rows=rows,
        most=max((row.cost for row in rows), default=0),
        total=sum(row.cost for row in rows),
        few=await look.reads.few(chosen),
        waste=await look.reads.waste(chosen),
        dearest=[trace for trace in dearest if trace.cost],
        by=key,
        keys=KEYS,
        range=range_,
        ranges=RANGES,
    )
