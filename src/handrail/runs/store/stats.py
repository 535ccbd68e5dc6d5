"""How runs ended over time: the shares of the paths are a measured service level."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Connection, func, literal_column, select

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.runs.outcome import PATHS, Path

from .runs import runs


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """The runs that began in the stretch from `at`, by the path they count as; without an outcome they are left out."""

    at: datetime
    runs: Mapping[Path, int]


def paths_over_time(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, every: timedelta
) -> list[PathPoint]:
    """The paths of the runs that began from `since` on and before `until`, in stretches of `every`, in their order.

    Stretches are counted from 1970 in UTC; those without runs are left out.
    """
    # Written out: Postgres takes two parameters for two expressions, and would not group by the one it selects.
    length = literal_column(str(every // timedelta(microseconds=1) * 1_000), BigInteger)
    at = (runs.c.started_ns - runs.c.started_ns % length).label("at")
    query = (
        select(at, runs.c.path, func.count().label("count"))
        .where(runs.c.started_ns >= unix_ns(since), runs.c.started_ns < unix_ns(until), runs.c.path.is_not(None))
        .group_by(at, runs.c.path)
        .order_by(at)
    )
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    found: dict[int, dict[Path, int]] = {}
    for row in conn.execute(query):
        found.setdefault(row.at, dict.fromkeys(PATHS, 0))[row.path] = row[2]
    return [PathPoint(at=from_unix_ns(at_ns), runs=counts) for at_ns, counts in found.items()]
