"""The cost, waste and latency reports that the terminal and the pages show: which traces they read, and how many.

Figures over all traces come from rollups and summaries. Figures that need spans come from a sample, whose limits are
here. Each operation only reads; analysing what it returns needs no connection, so it may happen on another thread.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from handrail.kernel.db.operation import operation
from handrail.kernel.errors import NotFound

from . import semconv
from .analysis.cost_drivers import CostConcentration, CostDriver, find_cost_drivers, most_expensive
from .model import Span
from .store.spans import load_trace
from .store.trace_queries import TraceCost, top_traces, trace_costs

COMPARED_TRACES = 100
"""The number of expensive traces, and of other traces, whose spans are compared for cost drivers."""
LATEST_TRACES = 200
"""The number of latest traces that are searched for waste and give own times and critical paths."""
SLOWEST_TRACES = 10
"""The number of the slowest of these that are searched for spans that could have run in parallel."""
MAX_TRACE_SPANS = 5_000
"""A trace with more spans is left out of every analysis that reads spans."""

RowT = TypeVar("RowT")


class TraceReference(Protocol):
    """A row that identifies one tenant's part of a trace."""

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        ...

    @property
    def tenant(self) -> str:
        """The tenant."""
        ...


@dataclass(frozen=True)
class CostSample:
    """Which traces make up most of the cost, and the spans of a sample of these and of the rest."""

    concentration: CostConcentration
    costs: Sequence[TraceCost]
    """All traces, the most expensive first."""
    expensive: Sequence[Sequence[Span]]
    rest: Sequence[Sequence[Span]]

    def drivers(self) -> list[CostDriver]:
        """How the expensive traces differ from the rest, as far as the sample shows."""
        return find_cost_drivers(self.expensive, self.rest)


@operation
def load_cost_sample(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, agent: str | None = None
) -> CostSample:
    """The costs of all traces that started in a range, and up to COMPARED_TRACES traces of each side.

    Args:
        tenant: Whose traces; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        agent: Only traces of this agent.
    """
    costs = list(trace_costs(tenant=tenant, since=since, until=until, agent=agent)(conn))
    concentration = most_expensive(row.cost for row in costs)
    count = concentration.traces
    expensive, rest = (
        _load_traces(conn, spread_evenly(side, COMPARED_TRACES)) for side in (costs[:count], costs[count:])
    )
    return CostSample(concentration, costs, expensive, rest)


@operation
def load_latest_traces(
    conn: Connection,
    *,
    tenant: str | None,
    since: datetime,
    until: datetime,
    agent: str | None = None,
    limit: int = LATEST_TRACES,
) -> list[Sequence[Span]]:
    """The spans of the latest traces that started in a range; fewer than `limit` if some are too long.

    Args:
        tenant: Whose traces; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        agent: Only traces of this agent.
        limit: The number of traces.
    """
    latest = top_traces(tenant=tenant, since=since, until=until, agent=agent, limit=limit)(conn)
    return _load_traces(conn, (trace for trace in latest if trace.spans <= MAX_TRACE_SPANS))


def spread_evenly(rows: Sequence[RowT], count: int) -> Sequence[RowT]:
    """At most `count` of the rows, evenly spaced from the first on."""
    return rows[:: -(-len(rows) // count) or 1]


def _load_traces(conn: Connection, references: Iterable[TraceReference]) -> list[Sequence[Span]]:
    """The spans of each trace, as its own tenant sees it; those removed meanwhile or too long are left out."""
    loaded: list[Sequence[Span]] = []
    for reference in references:
        try:
            summary, spans = load_trace(reference.trace_id, reference.tenant)(conn)
        except NotFound:
            continue
        if summary.spans <= MAX_TRACE_SPANS:
            loaded.append(spans)
    return loaded


def cost_note(span: Span) -> str:
    """What has to be said about a span's cost: that it is estimated, or that it had no bound; empty if nothing has.

    Args:
        span: The span.
    """
    notes = []
    if span.attributes.get(semconv.ESTIMATED):
        notes.append("estimated: the provider did not say what it used")
    if unbounded := span.attributes.get(semconv.UNBOUNDED):
        names = unbounded if isinstance(unbounded, str) else ", ".join(map(str, unbounded))
        notes.append(f"without a bound: {names}")
    return "; ".join(notes)
