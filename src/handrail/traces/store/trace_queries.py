"""Queries over traces: lists of them, their costs, and their missing spans.

Every query takes a tenant, None being the operator's view of all tenants. A time range has aware datetimes, `until`
excluded, and selects traces by their start, to the nanosecond.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    or_,
    select,
    tuple_,
)

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.operation import operation
from handrail.kernel.money import NanoUsd

from .spans import spans
from .summaries import TraceSummary, summary_from_row, traces

TraceOrder = Literal["started", "cost", "duration", "errors"]
TraceCursor = tuple[int, int, str, str]
"""The position in a list of traces after which the next page starts; see `cursor_of`."""
_ORDERS: dict[TraceOrder, str] = {"started": "start_ns", "cost": "cost", "duration": "duration_ns", "errors": "errors"}


@dataclass(frozen=True, slots=True)
class TraceCost:
    """The cost of one tenant's part of a trace."""

    trace_id: str
    tenant: str
    cost: NanoUsd


@operation
def top_traces(
    conn: Connection,
    *,
    tenant: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
    order: TraceOrder = "started",
    agent: str | None = None,
    user: str | None = None,
    fingerprint: str | None = None,
    text: str | None = None,
    limit: int = 20,
    after: TraceCursor | None = None,
) -> list[TraceSummary]:
    """A page of traces: the newest, most expensive or longest first, or those with the most errors.

    Args:
        tenant: Whose traces; None is the operator's view of all tenants.
        since: Only traces that started at or after this time.
        until: Only traces that started before this time.
        order: The value by which traces are sorted, in descending order.
        agent: Only traces of this agent.
        user: Only traces of this user.
        fingerprint: Only traces of the agent with this hash.
        text: Only traces with this text in their name, ignoring case, or whose id starts with it.
        limit: The length of the page.
        after: The cursor of the last trace of the previous page.
    """
    columns = [traces.c[name] for name in dict.fromkeys((_ORDERS[order], "start_ns", "trace_id", "tenant"))]
    query = _within(select(traces), tenant, since, until, order)
    filters = {"agent": agent, "user_id": user, "fingerprint": fingerprint}
    query = query.where(*(traces.c[name] == value for name, value in filters.items() if value is not None))
    if text is not None:
        id_starts = traces.c.trace_id.startswith(text.lower(), autoescape=True)
        query = query.where(or_(traces.c.name.icontains(text, autoescape=True), id_starts))
    if after is not None:
        cursor = after[1:] if order == "started" else after
        query = query.where(tuple_(*columns) < tuple_(*cursor))
    query = query.order_by(*(column.desc() for column in columns)).limit(limit)
    return [summary_from_row(row) for row in conn.execute(query)]


def cursor_of(trace: TraceSummary, order: TraceOrder) -> TraceCursor:
    """The cursor of the page that starts after `trace`, in a list of this order."""
    values: dict[TraceOrder, int] = {
        "started": trace.start_ns,
        "cost": trace.cost,
        "duration": trace.duration_ns,
        "errors": trace.errors,
    }
    return values[order], trace.start_ns, trace.trace_id, trace.tenant


@operation
def trace_costs(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, agent: str | None = None
) -> Iterator[TraceCost]:
    """The cost of each trace, the most expensive first; rows are fetched lazily, within the same read.

    Args:
        tenant: Whose traces; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        agent: Only traces of this agent.
    """
    query = select(traces.c.trace_id, traces.c.tenant, traces.c.cost).order_by(traces.c.cost.desc())
    within = _within(query, tenant, since, until, "cost")
    if agent is not None:
        within = within.where(traces.c.agent == agent)
    for row in conn.execute(within, execution_options={"yield_per": 1_000}):
        yield TraceCost(row.trace_id, row.tenant, NanoUsd(row.cost))


@operation
def missing_spans(conn: Connection, trace_id: str, tenant: str | None) -> int:
    """The number of parents named by a trace's spans that are not stored: lost, not received yet, or never sent."""
    parent = spans.alias()
    query = (
        select(func.count(spans.c.parent_id.distinct()))
        .select_from(
            spans.outerjoin(parent, and_(parent.c.trace_id == spans.c.trace_id, parent.c.span_id == spans.c.parent_id))
        )
        .where(spans.c.trace_id == trace_id, spans.c.parent_id.is_not(None), parent.c.span_id.is_(None))
    )
    if tenant is not None:
        query = query.where(spans.c.tenant == tenant)
    return conn.execute(query).scalar_one()


def _within(
    query: Select[Any], tenant: str | None, since: datetime | None, until: datetime | None, order: TraceOrder
) -> Select[Any]:
    """Only one tenant's traces that started in the range."""
    started: ColumnElement[int] = traces.c.start_ns
    if order != "started":
        # The addition keeps SQLite from using the index of the start, which it would choose for lack of statistics: it
        # would sort a month's traces to show twenty, 1,000 times slower than reading the index of the order.
        started = started + 0
    if tenant is not None:
        query = query.where(traces.c.tenant == tenant)
    if since is not None:
        query = query.where(started >= unix_ns(since))
    if until is not None:
        query = query.where(started < unix_ns(until))
    return query
