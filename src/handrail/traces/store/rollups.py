"""Rollups: latency and spend per tenant and hour, and again per day, so that long ranges are read from few rows.

A third level has days without the column with the most values: steps for all tenants together, spend for all users of
a tenant. Hours and days are in UTC, and a span counts in the one it started in.

Writing a span adds its numbers to its rows, so spans may arrive in any order and in any batches. Adding is not
idempotent: only spans that the same transaction has newly inserted may be added (see `SpanBatch`), or a span that a
sender repeats would be counted twice. Nothing is ever subtracted: rollups outlive their spans.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    String,
    Subquery,
    Table,
    func,
    select,
    union_all,
)

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.engine import insert
from handrail.kernel.db.schema import metadata
from handrail.traces.model import Span

from .bulk import RowValues, write_rows
from .histogram import bucket_of

Grain = Literal["hour", "day"]
Level = Literal["hour", "day", "day_all"]
"""The granularity of a row. In `day_all`, the steps of all tenants have the tenant "", the spend of all users the user
""."""

GRAIN_NS: Mapping[Grain, int] = {"hour": 3_600_000_000_000, "day": 86_400_000_000_000}
"""The length of each in nanoseconds."""

# Without row ids SQLite keeps a table in the order of its primary key: a range of hours is read in one piece.
step_rollups = Table(
    "step_rollups",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("level", String, primary_key=True),
    Column("start_ns", BigInteger, primary_key=True),
    Column("agent", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("total_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
spend_rollups = Table(
    "spend_rollups",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("level", String, primary_key=True),
    Column("start_ns", BigInteger, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("agent", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("fingerprint", String, primary_key=True),
    Column("governed", Boolean, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("reported_cost", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class RollupRows:
    """The rows that some spans add to each rollup table, in the order of their keys.

    Every transaction adds in that order, so that two of them cannot deadlock on Postgres.
    """

    steps: Sequence[RowValues]
    spend: Sequence[RowValues]


@dataclass(frozen=True, slots=True)
class LevelRange:
    """The rows of one level that start in a range of nanoseconds since 1970, the end excluded."""

    level: Level
    from_ns: int
    to_ns: int


def rollup_rows(new_spans: Iterable[Span]) -> RollupRows:
    """The rows that newly inserted spans add. Spend covers model requests, and any other span with a cost or tokens."""
    steps: dict[RowValues, list[int]] = {}
    spend: dict[RowValues, list[int]] = {}
    for span in new_spans:
        hour, day = (span.start_ns // length * length for length in GRAIN_NS.values())
        step = (span.agent, span.kind, span.name, bucket_of(span.duration_ns))
        latency = (1, int(span.error_type is not None), span.duration_ns)
        _add(steps, (span.tenant, "hour", hour, *step), latency)
        _add(steps, (span.tenant, "day", day, *step), latency)
        _add(steps, ("", "day_all", day, *step), latency)
        if (spent := _spend(span)) is not None:
            group = (span.agent, span.model or "", span.fingerprint or "", span.held is not None)
            _add(spend, (span.tenant, "hour", hour, span.user, *group), spent)
            _add(spend, (span.tenant, "day", day, span.user, *group), spent)
            _add(spend, (span.tenant, "day_all", day, "", *group), spent)
    return RollupRows(_rows(steps), _rows(spend))


def add_rollups(conn: Connection, rollups: RollupRows) -> None:
    """Adds rows to the rollups, or inserts those that are not there yet."""
    for table, rows in ((step_rollups, rollups.steps), (spend_rollups, rollups.spend)):
        write_rows(conn, _upsert(conn.dialect.name, table), rows)


def hour_range(since: datetime, until: datetime) -> list[LevelRange]:
    """The whole hours that contain `since` to `until` (aware datetimes, the end excluded)."""
    hour = GRAIN_NS["hour"]
    return [LevelRange("hour", unix_ns(since) // hour * hour, -(-unix_ns(until) // hour) * hour)]


def split_range(since: datetime, until: datetime, days: Literal["day", "day_all"]) -> list[LevelRange]:
    """The same hours as `hour_range`, but with whole days read from the level `days`."""
    day = GRAIN_NS["day"]
    [hours] = hour_range(since, until)
    first_day, end_day = -(-hours.from_ns // day) * day, hours.to_ns // day * day
    if first_day >= end_day:
        return [hours]
    ranges = [
        LevelRange("hour", hours.from_ns, first_day),
        LevelRange(days, first_day, end_day),
        LevelRange("hour", end_day, hours.to_ns),
    ]
    return [part for part in ranges if part.from_ns < part.to_ns]


def rollups_within(table: Table, tenant: str | None, parts: Sequence[LevelRange]) -> Subquery:
    """The rollup's rows in `parts`, of one tenant or, with None, of all."""
    return union_all(*(select(table).where(*_within(table, tenant, part)) for part in parts)).subquery()


def _spend(span: Span) -> tuple[int, ...] | None:
    usage, reported = span.usage, span.reported_cost or 0
    amounts = (usage.input, usage.output, usage.cache_read, usage.cache_write, span.cost, reported)
    requests = int(span.kind == "model")
    return (requests, *amounts) if requests or any(amounts) else None


def _add(cells: dict[RowValues, list[int]], key: RowValues, values: Sequence[int]) -> None:
    cell = cells.get(key)
    if cell is None:
        cells[key] = list(values)
    else:
        for index, value in enumerate(values):
            cell[index] += value


def _rows(cells: dict[RowValues, list[int]]) -> list[RowValues]:
    return [(*key, *cells[key]) for key in sorted(cells)]


def _within(table: Table, tenant: str | None, part: LevelRange) -> Iterator[ColumnElement[bool]]:
    if tenant is not None:
        yield table.c.tenant == tenant
    elif table is step_rollups and part.level == "day_all":
        yield table.c.tenant == ""
    else:
        yield table.c.tenant.in_(_tenants(table))
    yield table.c.level == part.level
    yield table.c.start_ns >= part.from_ns
    yield table.c.start_ns < part.to_ns


@functools.cache
def _tenants(table: Table) -> Any:
    """Every tenant of the table by one index look-up each; DISTINCT would read all rows."""
    tenants = select(func.min(table.c.tenant).label("tenant")).cte(f"tenants_of_{table.name}", recursive=True)
    following = select(func.min(table.c.tenant)).where(table.c.tenant > tenants.c.tenant).scalar_subquery()
    tenants = tenants.union_all(select(following).where(tenants.c.tenant.is_not(None)))
    return select(tenants.c.tenant)


@functools.cache
def _upsert(dialect: str, table: Table) -> Any:
    statement = insert(dialect, table)
    sums = [column.name for column in table.c if not column.primary_key]
    changes = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=changes)
