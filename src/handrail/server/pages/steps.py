"""How long each step takes, and where the time of the slowest traces goes."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.server.params import Word
from handrail.server.queries import TraceFound
from handrail.server.time_ranges import RANGES, InRange, range_of
from handrail.traces.analysis.critical_path import shares
from handrail.traces.analysis.parallelism import Finding

from .context import Look, Looking

router = APIRouter(include_in_schema=False)

SAMPLE = 50
"""Traces that the shares of the critical path are worked out over: the longest of the range."""
COMPARED = 10
"""Of these, how many are searched for what could have run side by side."""
SHOWN = 5
_SPANS = 5_000
"""A trace with more spans than this is left out of the sample."""

Sort = Annotated[str, Query(pattern="^(total|count|errors|p50|p95|p99|self|critical)$")]


@router.get("/steps")
async def show(look: Looking, range_: InRange = "24h", agent: Word = "", sort: Sort = "total") -> Response:
    """Every step of a range."""
    chosen = range_of(range_, look.site.runtime.clock.now())
    found = await look.reads.steps(chosen, agent or None)
    longest = await look.reads.traces(
        chosen, order="duration", agent=agent or None, user=None, text=None, limit=SAMPLE, after=None
    )
    sample = [await look.reads.trace(each.trace_id) for each in longest if each.spans <= _SPANS]
    taken = await asyncio.to_thread(shares, [trace.spans for trace in sample])
    parts = {(each.kind, each.name): each for each in taken}
    rows = [(step, parts.get((step.kind, step.name))) for step in found]
    keys = {
        "self": lambda row: row[1].self_ns if row[1] else 0,
        "critical": lambda row: row[1].critical_ns if row[1] else 0,
        "count": lambda row: row[0].count,
        "errors": lambda row: row[0].errors,
    }
    by = keys.get(sort, lambda row: getattr(row[0], f"{sort}_ns"))
    return look.page(
        "steps.html",
        rows=sorted(rows, key=by, reverse=True),
        sort=sort,
        agent=agent,
        range=range_,
        ranges=RANGES,
        sample=len(sample),
        findings=await _findings(look, sample[:COMPARED]),
    )


async def _findings(look: Look, sample: Sequence[TraceFound]) -> list[tuple[Finding, TraceFound]]:
    """What could have run side by side, each finding once, with the trace in which it saves most."""
    best: dict[tuple[str, str], tuple[Finding, TraceFound]] = {}
    for trace in sample:
        for finding in await look.reads.findings(trace):
            key = (finding.names, finding.inside.name)
            if key not in best or finding.saved_ns > best[key][0].saved_ns:
                best[key] = (finding, trace)
    return sorted(best.values(), key=lambda each: -each[0].saved_ns)[:SHOWN]
