"""Queries over rollups: the latency of steps, and spend.

Every query takes a tenant, None being the operator's view of all tenants, and a time range: aware datetimes, `until`
excluded. Rollups hold whole hours of UTC, so a range is widened to whole hours.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
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
    case,
    cast,
    func,
    select,
)

from handrail.kernel.clock import from_unix_ns
from handrail.kernel.db.operation import operation
from handrail.kernel.db.queries import interval_start
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Kind

from .histogram import percentile
from .rollups import GRAIN_NS, Grain, hour_range, rollups_within, spend_rollups, split_range, step_rollups

SpendKey = Literal["tenant", "user", "agent", "model", "fingerprint", "day"]
_KEYS: dict[SpendKey, str] = {
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
    """How long spans took: percentiles in nanoseconds, accurate to 2.5%, and the exact total."""

    count: int
    errors: int
    p50_ns: int
    p95_ns: int
    p99_ns: int
    total_ns: int


@dataclass(frozen=True, kw_only=True)
class StepLatency(Latency):
    """The latency of one step: all spans of one kind and name."""

    kind: Kind
    name: str


@dataclass(frozen=True, kw_only=True)
class LatencyPoint(Latency):
    """The latency of spans that started in the hour or day from `at`."""

    at: datetime


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Tokens and cost of model requests. `ungoverned` is the part of `cost` for which no money was held."""

    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: NanoUsd
    reported_cost: NanoUsd
    """The sum of the costs that senders report."""
    ungoverned: NanoUsd


@dataclass(frozen=True, kw_only=True)
class SpendRow(Spend):
    """The spend of one tenant, user, agent, model, fingerprint or day (as 2026-01-31).

    `tenant` is the tenant of a user, and None for every other key.
    """

    key: str
    tenant: str | None


@dataclass(frozen=True, kw_only=True)
class SpendPoint(Spend):
    """The spend of the hour or day from `at`."""

    at: datetime


@dataclass(frozen=True, kw_only=True)
class UngovernedSpend:
    """Spend that no ceiling covers, of one agent with one model for one tenant."""

    tenant: str
    agent: str
    model: str
    requests: int
    cost: NanoUsd


@operation
def step_latencies(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, agent: str | None = None
) -> list[StepLatency]:
    """The latency of each step, by total time in descending order.

    Args:
        tenant: Whose spans; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        agent: Only spans of this agent.
    """
    cells = rollups_within(step_rollups, tenant, split_range(since, until, _days_of_steps(tenant)))
    query = _latency_rows(cells, cells.c.kind, cells.c.name)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    steps = [StepLatency(kind=kind, name=name, **fields) for (kind, name), fields in _latencies(conn.execute(query))]
    return sorted(steps, key=lambda step: (-step.total_ns, step.kind, step.name))


@operation
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
    """The number, errors and latency of the spans that started in each hour or day; empty ones are left out.

    Args:
        tenant: Whose spans; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        bucket: Hours or days.
        kind: The kind of the spans; those of kind `agent` are the runs.
        name: Only spans of this name.
        agent: Only spans of this agent.
    """
    parts = hour_range(since, until) if bucket == "hour" else split_range(since, until, _days_of_steps(tenant))
    cells = rollups_within(step_rollups, tenant, parts)
    at = _start_of(cells.c.start_ns, bucket)
    query = _latency_rows(cells, at).where(cells.c.kind == kind)
    if name is not None:
        query = query.where(cells.c.name == name)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    points = [LatencyPoint(at=from_unix_ns(at_ns), **fields) for (at_ns,), fields in _latencies(conn.execute(query))]
    return sorted(points, key=lambda point: point.at)


@operation
def spend_by(
    conn: Connection,
    *,
    key: SpendKey,
    tenant: str | None,
    since: datetime,
    until: datetime,
    agent: str | None = None,
    user: str | None = None,
    limit: int = 100,
) -> list[SpendRow]:
    """The spend by tenant, user, agent, model, fingerprint or day, the most expensive first; days in order of time.

    Args:
        key: What to group by; a model or fingerprint that spans do not have is "".
        tenant: Whose spend; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        agent: Only the spend of this agent.
        user: Only the spend of this user.
        limit: The number of rows.
    """
    days: Literal["day", "day_all"] = "day" if key == "user" or user is not None else "day_all"
    cells = rollups_within(spend_rollups, tenant, split_range(since, until, days))
    by = cells.c[_KEYS[key]] if key != "day" else _start_of(cells.c.start_ns, "day")
    tenants = [cells.c.tenant] if key == "user" else []
    query = _spend_rows(cells, by.label("key"), *tenants, agent=agent, user=user).limit(limit)
    query = query.order_by(by) if key == "day" else query.order_by(func.sum(cells.c.cost).desc(), by, *tenants)
    return [
        SpendRow(
            key=from_unix_ns(row.key).date().isoformat() if key == "day" else row.key,
            tenant=row.tenant if tenants else None,
            **_spend_fields(row),
        )
        for row in conn.execute(query)
    ]


@operation
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
    """The spend of each hour or day, in order of time; empty ones are left out.

    Args:
        tenant: Whose spend; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        bucket: Hours or days.
        agent: Only the spend of this agent.
        user: Only the spend of this user.
    """
    days: Literal["day", "day_all"] = "day_all" if user is None else "day"
    parts = hour_range(since, until) if bucket == "hour" else split_range(since, until, days)
    cells = rollups_within(spend_rollups, tenant, parts)
    at = _start_of(cells.c.start_ns, bucket)
    query = _spend_rows(cells, at.label("key"), agent=agent, user=user).order_by(at)
    return [SpendPoint(at=from_unix_ns(row.key), **_spend_fields(row)) for row in conn.execute(query)]


@operation
def ungoverned_spend(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, limit: int = 100
) -> list[UngovernedSpend]:
    """Spend for which no money was held, by tenant, agent and model, the most expensive first.

    Args:
        tenant: Whose spend; None is the operator's view of all tenants.
        since: The start of the range.
        until: Its end, excluded.
        limit: The number of rows.
    """
    cells = rollups_within(spend_rollups, tenant, split_range(since, until, "day_all"))
    by = (cells.c.tenant, cells.c.agent, cells.c.model)
    cost = func.sum(cells.c.cost)
    query = select(*by, _sum(cells.c.requests), _sum(cells.c.cost)).where(cells.c.governed.is_(False))
    query = query.group_by(*by).having(cost > 0).order_by(cost.desc(), *by).limit(limit)
    return [
        UngovernedSpend(
            tenant=row.tenant, agent=row.agent, model=row.model, requests=row.requests, cost=NanoUsd(row.cost)
        )
        for row in conn.execute(query)
    ]


def _days_of_steps(tenant: str | None) -> Literal["day", "day_all"]:
    return "day_all" if tenant is None else "day"


def _start_of(start_ns: ColumnElement[int], bucket: Grain) -> ColumnElement[int]:
    return interval_start(start_ns, timedelta(microseconds=GRAIN_NS[bucket] // 1_000))


def _sum(column: ColumnElement[int]) -> Label[int]:
    # Postgres adds big integers up to a decimal.
    return cast(func.sum(column), BigInteger).label(getattr(column, "name", None))


def _latency_rows(cells: Subquery, *by: ColumnElement[Any]) -> Select[Any]:
    sums = (_sum(cells.c[name]) for name in ("count", "errors", "total_ns"))
    return select(*by, cells.c.bucket, *sums).group_by(*by, cells.c.bucket)


def _latencies(rows: Iterable[Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, int]]]:
    """The fields of a Latency for each key of `_latency_rows`."""
    counts: dict[tuple[Any, ...], Counter[int]] = {}
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for *by, bucket, count, errors, total_ns in rows:
        key = tuple(by)
        counts.setdefault(key, Counter())[bucket] += count
        sums.setdefault(key, Counter()).update(count=count, errors=errors, total_ns=total_ns)
    for key, histogram in counts.items():
        yield key, {**sums[key], **{name: percentile(histogram, share) for name, share in _SHARES.items()}}


def _spend_rows(cells: Subquery, *by: ColumnElement[Any], agent: str | None, user: str | None) -> Select[Any]:
    ungoverned = case((cells.c.governed, 0), else_=cells.c.cost)
    query = select(*by, *(_sum(cells.c[name]) for name in _SUMS), _sum(ungoverned).label("ungoverned")).group_by(*by)
    if agent is not None:
        query = query.where(cells.c.agent == agent)
    if user is not None:
        query = query.where(cells.c.user_id == user)
    return query


def _spend_fields(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (*_SUMS, "ungoverned")}
