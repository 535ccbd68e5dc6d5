"""The first page: how runs end, what they cost, how long they take, what fails."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from handrail.kernel.money import usd
from handrail.runs.outcome import PATHS
from handrail.server.charts import Frame, bars, lines, stacked
from handrail.server.queries import Overview, Range
from handrail.server.time_ranges import RANGES, InRange, range_of
from handrail.traces.store.queries import LatencyPoint

from .context import Look, Looking

router = APIRouter(include_in_schema=False)

_PERCENTILES = ("p50", "p95", "p99")


@router.get("/")
async def show(look: Looking, range_: InRange = "24h") -> Response:
    """The overview of a range."""
    chosen = range_of(range_, look.site.runtime.clock.now())
    found = await look.reads.overview(chosen)
    counts = {path: sum(point.runs[path] for point in found.paths) for path in PATHS}
    spans = sum(point.count for point in found.latency)
    return look.page(
        "overview.html",
        range=range_,
        ranges=RANGES,
        counts=counts,
        runs=sum(counts.values()),
        spans=spans,
        cost=sum(point.cost for point in found.spend),
        ungoverned=found.ungoverned,
        waiting=found.waiting,
        charts=await _charts(look, chosen, found) if spans or any(counts.values()) else {},
    )


async def _charts(look: Look, chosen: Range, found: Overview) -> dict[str, Markup]:
    """The drawings by their titles."""
    frame = partial(Frame, since=chosen.since, until=chosen.until, every=chosen.every)
    parts = [
        {"at": point.at, "part": path, "value": point.runs[path], "rank": rank}
        for point in found.paths
        for rank, path in enumerate(PATHS)
        if point.runs[path]
    ]
    spend = [{"at": point.at, "value": float(usd(point.cost))} for point in found.spend]
    errors = [{"at": point.at, "value": point.errors} for point in found.latency]
    specs = {
        "Runs by path": partial(stacked, frame(title="runs"), parts, PATHS),
        "Spend": partial(bars, frame(title="dollars", form="$.3~r"), spend, "accent"),
        "Latency of runs": partial(
            lines, frame(title="seconds", form="~r"), list(_latencies(found.latency)), _PERCENTILES
        ),
        "Runs with a fault": partial(bars, frame(title="with a fault"), errors, "failed"),
    }
    key = (look.reads.tenant, chosen.name)
    return {title: await look.site.charts.drawn((*key, title), draw) for title, draw in specs.items()}


def _latencies(points: Sequence[LatencyPoint]) -> Iterator[dict[str, Any]]:
    for point in points:
        for part in _PERCENTILES:
            yield {"at": point.at, "part": part, "value": getattr(point, f"{part}_ns") / 1e9}
