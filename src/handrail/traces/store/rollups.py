"""What spans add up to, per tenant and hour, and per day again so that long ranges are read from few rows.

Days are kept once more without what has most values: steps for all tenants together, spend for all users of a tenant.
Hours and days are UTC's, and a span counts in the one it began in. Rows only grow by what is added to them: spans may
come in any order, and rollups outlive the spans that they were made of.
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

from .bulk import Values, write_rows
from .histogram import bucket_of

Grain = Literal["hour", "day"]
Level = Literal["hour", "day", "day_all"]
"""How far rows are summed up. In `day_all`, steps of all tenants are under the tenant "", spend of all users under the
user ""."""

GRAINS: Mapping[Grain, int] = {"hour": 3_600_000_000_000, "day": 86_400_000_000_000}
"""Nanoseconds of each."""

# A table without row ids is one tree, ordered by its key: a range of hours is one stretch of it.
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
class Rolled:
    """What some spans add to the rollups: rows of each table, in the order of their keys.

    Everybody adds in that order, so that no two transactions of Postgres wait for each other.
    """

    steps: Sequence[Values]
    spend: Sequence[Values]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a range that rows of one level cover: those that start in it, nanoseconds since 1970."""

    level: Level
    from_ns: int
    to_ns: int


def roll(found: Iterable[Span]) -> Rolled:
    """What `found` adds. Spend is of model requests, and of whatever else has a cost or tokens."""
    steps: dict[Values, list[int]] = {}
    spend: dict[Values, list[int]] = {}
    for span in found:
        hour, day = (span.start_ns // length * length for length in GRAINS.values())
        step = (span.agent, span.kind, span.name, bucket_of(span.duration_ns))
        timed = (1, int(span.error_type is not None), span.duration_ns)
        _add(steps, (span.tenant, "hour", hour, *step), timed)
        _add(steps, (span.tenant, "day", day, *step), timed)
        _add(steps, ("", "day_all", day, *step), timed)
        if (spent := _spent(span)) is not None:
            what = (span.agent, span.model or "", span.fingerprint or "", span.held is not None)
            _add(spend, (span.tenant, "hour", hour, span.user, *what), spent)
            _add(spend, (span.tenant, "day", day, span.user, *what), spent)
            _add(spend, (span.tenant, "day_all", day, "", *what), spent)
    return Rolled(_rows(steps), _rows(spend))


def add(conn: Connection, rolled: Rolled) -> None:
    """Adds to the rollups, rows that are not there yet being zero."""
    for table, rows in ((step_rollups, rolled.steps), (spend_rollups, rolled.spend)):
        write_rows(conn, _adding(conn.dialect.name, table), rows)


def hours(since: datetime, until: datetime) -> list[Stretch]:
    """The whole hours that hold `since` to `until` (aware, the last excluded)."""
    hour = GRAINS["hour"]
    return [Stretch("hour", unix_ns(since) // hour * hour, -(-unix_ns(until) // hour) * hour)]


def stretches(since: datetime, until: datetime, days: Literal["day", "day_all"]) -> list[Stretch]:
    """The same hours, as whole days of that level where there are any."""
    day = GRAINS["day"]
    [whole] = hours(since, until)
    morning, midnight = -(-whole.from_ns // day) * day, whole.to_ns // day * day
    if morning >= midnight:
        return [whole]
    found = [
        Stretch("hour", whole.from_ns, morning),
        Stretch(days, morning, midnight),
        Stretch("hour", midnight, whole.to_ns),
    ]
    return [each for each in found if each.from_ns < each.to_ns]


def rows_of(table: Table, tenant: str | None, parts: Sequence[Stretch]) -> Subquery:
    """The rollup's rows of `parts`, of one tenant or, where it is None, of all."""
    return union_all(*(select(table).where(*_within(table, tenant, part)) for part in parts)).subquery()


def _spent(span: Span) -> tuple[int, ...] | None:
    usage, reported = span.usage, span.reported_cost or 0
    found = (usage.input, usage.output, usage.cache_read, usage.cache_write, span.cost, reported)
    requests = int(span.kind == "model")
    return (requests, *found) if requests or any(found) else None


def _add(cells: dict[Values, list[int]], key: Values, values: Sequence[int]) -> None:
    cell = cells.get(key)
    if cell is None:
        cells[key] = list(values)
    else:
        for index, value in enumerate(values):
            cell[index] += value


def _rows(cells: dict[Values, list[int]]) -> list[Values]:
    return [(*key, *cells[key]) for key in sorted(cells)]


def _within(table: Table, tenant: str | None, part: Stretch) -> Iterator[ColumnElement[bool]]:
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
    """Every tenant of the table, one seek each, where DISTINCT would read all its rows."""
    found = select(func.min(table.c.tenant).label("tenant")).cte(f"tenants_of_{table.name}", recursive=True)
    following = select(func.min(table.c.tenant)).where(table.c.tenant > found.c.tenant).scalar_subquery()
    found = found.union_all(select(following).where(found.c.tenant.is_not(None)))
    return select(found.c.tenant)


@functools.cache
def _adding(dialect: str, table: Table) -> Any:
    statement = insert(dialect, table)
    sums = [column.name for column in table.c if not column.primary_key]
    changes = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=changes)
