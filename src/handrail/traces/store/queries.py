"""Questions over many traces. Every one takes a tenant, None being the operator's view of all, and a time range.

`since` and `until` are aware datetimes. What is read from rollups, latencies and spend, is of whole hours of UTC: the
range is widened to them. Traces are told apart to the nanosecond, by their begin.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Label,
    Row,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Kind

from .histogram import percentile
from .rollups import GRAINS, Grain, hours, rows_of, spend_rollups, step_rollups, stretches
from .spans import spans
from .summaries import TraceSummary, read_summary, traces

Order = Literal["started", "cost", "duration", "errors"]
Key = Literal["tenant", "user", "agent", "model", "fingerprint", "day"]
Place = tuple[int, int, str, str]
"""Where a page of traces ended; see `place_of`."""

_ORDERS: dict[Order, str] = {"started": "start_ns", "cost": "cost", "duration": "duration_ns", "errors": "errors"}
_KEYS: dict[Key, str] = {
    "tenant": "tenant",
    "user": "user_id",
    "agent": "agent",
    "model": "model",
    "fingerprint": "fingerprint",
    "day": "start_ns",
}
_SHARES = {"p50_ns": Fraction(50, 100), "p95_ns": Fraction(95, 100), "p99_ns": Fraction(99, 100)}
_SUMS = tuple(column.name for column in spend_rollups.c if not column.primary_key)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long some spans took: percentiles in nanoseconds, each at most 2.5 % off, and their total, which is exact."""

    count: int
    errors: int
    p50_ns: int
    p95_ns: int
    p99_ns: int
    total_ns: int


@dataclass(frozen=True, kw_only=True)
class StepLatency(Latency):
    """All spans of one kind and name."""

    kind: Kind
    name: str


@dataclass(frozen=True, kw_only=True)
class LatencyPoint(Latency):
    """All spans that began in the hour or day from `at`."""

    at: datetime


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What model requests used. `ungoverned` is the part of `cost` that nobody held money for beforehand."""

    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: NanoUsd
    reported_cost: NanoUsd
    """The sum of what senders say it cost, where they do."""
    ungoverned: NanoUsd


@dataclass(frozen=True, kw_only=True)
class SpendRow(Spent):
    """The spend of one `key`: a tenant, user, agent, model, fingerprint or day (as 2026-01-31).

    `tenant` is whose user it is; None for every other key.
    """

    key: str
    tenant: str | None


@dataclass(frozen=True, kw_only=True)
class SpendPoint(Spent):
    """The spend of the hour or day from `at`."""

    at: datetime


@dataclass(frozen=True, kw_only=True)
class Ungoverned:
    """Spend around every ceiling: one agent's, with one model, for one tenant."""

    tenant: str
    agent: str
    model: str
    requests: int
    cost: NanoUsd


@dataclass(frozen=True, slots=True)
class TraceCost:
    """What one tenant's part of a trace cost."""

    trace_id: str
    tenant: str
    cost: NanoUsd


def step_latencies(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, agent: str | None = None
) -> list[StepLatency]:
    """How long each step took, of all agents or of one; those that took longest in all come first."""
    cells = rows_of(step_rollups, tenant, stretches(since, until, _days_of_steps(tenant)))
    query = _timed(cells, cells.c.kind, cells.c.name)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    found = [StepLatency(kind=kind, name=name, **each) for (kind, name), each in _latencies(conn.execute(query))]
    return sorted(found, key=lambda step: (-step.total_ns, step.kind, step.name))


def latency_over_time(
    conn: Connection,
    *,
    tenant: str | None,
    since: datetime,
    until: datetime,
    bucket: Grain,
    kind: Kind = "agent",
    name: str | None = None,
    agent: str | None = None,
) -> list[LatencyPoint]:
    """How many spans of a kind (and name) began in each hour or day, how many failed and how long they took.

    With the kind `agent` these are the runs. Hours and days without any are left out.
    """
    parts = hours(since, until) if bucket == "hour" else stretches(since, until, _days_of_steps(tenant))
    cells = rows_of(step_rollups, tenant, parts)
    at = _at(cells.c.start_ns, bucket)
    query = _timed(cells, at).where(cells.c.kind == kind)
    if name is not None:
        query = query.where(cells.c.name == name)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    found = [LatencyPoint(at=from_unix_ns(at_ns), **each) for (at_ns,), each in _latencies(conn.execute(query))]
    return sorted(found, key=lambda point: point.at)


def spend_by(
    conn: Connection,
    *,
    key: Key,
    tenant: str | None,
    since: datetime,
    until: datetime,
    agent: str | None = None,
    user: str | None = None,
    limit: int = 100,
) -> list[SpendRow]:
    """Who or what the money went to: the `limit` that cost most, the dearest first; days in their order.

    Of all agents and users, or of one. A model or fingerprint that the spans do not tell is "".
    """
    days: Literal["day", "day_all"] = "day" if key == "user" or user is not None else "day_all"
    cells = rows_of(spend_rollups, tenant, stretches(since, until, days))
    by = cells.c[_KEYS[key]] if key != "day" else _at(cells.c.start_ns, "day")
    whose = [cells.c.tenant] if key == "user" else []
    query = _summed(cells, by.label("key"), *whose, agent=agent, user=user).limit(limit)
    query = query.order_by(by) if key == "day" else query.order_by(func.sum(cells.c.cost).desc(), by, *whose)
    return [
        SpendRow(
            key=from_unix_ns(row.key).date().isoformat() if key == "day" else row.key,
            tenant=row.tenant if whose else None,
            **_spent(row),
        )
        for row in conn.execute(query)
    ]


def spend_over_time(
    conn: Connection,
    *,
    tenant: str | None,
    since: datetime,
    until: datetime,
    bucket: Grain,
    agent: str | None = None,
    user: str | None = None,
) -> list[SpendPoint]:
    """The spend of each hour or day, in their order; those without any are left out."""
    days: Literal["day", "day_all"] = "day_all" if user is None else "day"
    parts = hours(since, until) if bucket == "hour" else stretches(since, until, days)
    cells = rows_of(spend_rollups, tenant, parts)
    at = _at(cells.c.start_ns, bucket)
    query = _summed(cells, at.label("key"), agent=agent, user=user).order_by(at)
    return [SpendPoint(at=from_unix_ns(row.key), **_spent(row)) for row in conn.execute(query)]


def ungoverned_spend(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, limit: int = 100
) -> list[Ungoverned]:
    """Spend that nobody held money for beforehand, by tenant, agent and model, the dearest first."""
    cells = rows_of(spend_rollups, tenant, stretches(since, until, "day_all"))
    by = (cells.c.tenant, cells.c.agent, cells.c.model)
    cost = func.sum(cells.c.cost)
    query = select(*by, _sum(cells.c.requests), _sum(cells.c.cost)).where(cells.c.governed.is_(False))
    query = query.group_by(*by).having(cost > 0).order_by(cost.desc(), *by).limit(limit)
    return [
        Ungoverned(tenant=row.tenant, agent=row.agent, model=row.model, requests=row.requests, cost=NanoUsd(row.cost))
        for row in conn.execute(query)
    ]


def top_traces(
    conn: Connection,
    *,
    tenant: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
    order: Order = "started",
    agent: str | None = None,
    user: str | None = None,
    fingerprint: str | None = None,
    text: str | None = None,
    limit: int = 20,
    after: Place | None = None,
) -> list[TraceSummary]:
    """The traces with most of `order` first: the newest, dearest, longest, or those with most errors.

    `text` is found in the trace's name, in upper or lower case, or begins its id. `after` is the place of the last
    trace of the page before.
    """
    columns = [traces.c[name] for name in dict.fromkeys((_ORDERS[order], "start_ns", "trace_id", "tenant"))]
    query = _within(select(traces), tenant, since, until, order)
    given = {"agent": agent, "user_id": user, "fingerprint": fingerprint}
    query = query.where(*(traces.c[name] == value for name, value in given.items() if value is not None))
    if text is not None:
        begins = traces.c.trace_id.startswith(text.lower(), autoescape=True)
        query = query.where(or_(traces.c.name.icontains(text, autoescape=True), begins))
    if after is not None:
        place = after[1:] if order == "started" else after
        query = query.where(tuple_(*columns) < tuple_(*place))
    query = query.order_by(*(column.desc() for column in columns)).limit(limit)
    return [read_summary(row) for row in conn.execute(query)]


def place_of(trace: TraceSummary, order: Order) -> Place:
    """A trace's place in a list of this order, for `after`."""
    values: dict[Order, int] = {
        "started": trace.start_ns,
        "cost": trace.cost,
        "duration": trace.duration_ns,
        "errors": trace.errors,
    }
    return values[order], trace.start_ns, trace.trace_id, trace.tenant


def trace_costs(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, agent: str | None = None
) -> Iterator[TraceCost]:
    """What each trace cost, the dearest first; read while it is asked for, so within the read it was begun in."""
    query = select(traces.c.trace_id, traces.c.tenant, traces.c.cost).order_by(traces.c.cost.desc())
    within = _within(query, tenant, since, until, "cost")
    if agent is not None:
        within = within.where(traces.c.agent == agent)
    for row in conn.execute(within, execution_options={"yield_per": 1_000}):
        yield TraceCost(row.trace_id, row.tenant, NanoUsd(row.cost))


def missing_spans(conn: Connection, trace_id: str, tenant: str | None) -> int:
    """How many spans a trace's spans name as their parents and are not there: lost, not yet come, or never sent."""
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
    query: Select[Any], tenant: str | None, since: datetime | None, until: datetime | None, order: Order
) -> Select[Any]:
    """Only one tenant's traces, and those that began in the range."""
    began: ColumnElement[int] = traces.c.start_ns
    if order != "started":
        # Read in the order's own index, which has the start: sorting a month's traces to show twenty takes 1,000 times
        # as long, and without statistics SQLite would.
        began = began + 0
    if tenant is not None:
        query = query.where(traces.c.tenant == tenant)
    if since is not None:
        query = query.where(began >= unix_ns(since))
    if until is not None:
        query = query.where(began < unix_ns(until))
    return query


def _days_of_steps(tenant: str | None) -> Literal["day", "day_all"]:
    return "day_all" if tenant is None else "day"


def _at(start_ns: ColumnElement[int], bucket: Grain) -> ColumnElement[int]:
    # Written out: Postgres takes two parameters for two expressions, and would not group by the one it selects.
    length = literal_column(str(GRAINS[bucket]), BigInteger)
    return start_ns - start_ns % length


def _sum(column: ColumnElement[int]) -> Label[int]:
    # Postgres sums big integers to decimals.
    return cast(func.sum(column), BigInteger).label(getattr(column, "name", None))


def _timed(cells: Subquery, *by: ColumnElement[Any]) -> Select[Any]:
    sums = (_sum(cells.c[name]) for name in ("count", "errors", "total_ns"))
    return select(*by, cells.c.bucket, *sums).group_by(*by, cells.c.bucket)


def _latencies(rows: Iterable[Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, int]]]:
    """The fields of a Latency for each key of `_timed`."""
    counts: dict[tuple[Any, ...], Counter[int]] = {}
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for *by, bucket, count, errors, total_ns in rows:
        key = tuple(by)
        counts.setdefault(key, Counter())[bucket] += count
        sums.setdefault(key, Counter()).update(count=count, errors=errors, total_ns=total_ns)
    for key, histogram in counts.items():
        yield key, {**sums[key], **{name: percentile(histogram, share) for name, share in _SHARES.items()}}


def _summed(cells: Subquery, *by: ColumnElement[Any], agent: str | None, user: str | None) -> Select[Any]:
    around = case((cells.c.governed, 0), else_=cells.c.cost)
    query = select(*by, *(_sum(cells.c[name]) for name in _SUMS), _sum(around).label("ungoverned")).group_by(*by)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    if user is not None:
        query = query.where(cells.c.user_id == user)
    return query


def _spent(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (*_SUMS, "ungoverned")}
