"""How runs ended over time: the shares of the paths are a service level."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from handrail.kernel.clock import from_unix_ns
from handrail.kernel.db.operation import operation
from handrail.kernel.db.queries import interval_start
from handrail.runs.outcome import PATHS, Path

from .tables import runs


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """How many runs that began in the interval from `at` count as each path; runs without an outcome are left out."""

    at: datetime
    runs: Mapping[Path, int]


@operation
def paths_over_time(
    conn: Connection, *, tenant: str | None, since: datetime, until: datetime, interval: timedelta
) -> list[PathPoint]:
    """The paths of runs by the time they began; intervals without runs are left out.

    Args:
        conn: The connection to read with.
        tenant: Whose runs; None for those of every tenant.
        since: The earliest start of a run.
        until: The first moment after the range.
        interval: The length of each interval, counted from 1970 in UTC.
    """
    at = interval_start(runs.c.started_at, interval).label("at")
    query = (
        select(at, runs.c.path, func.count().label("runs"))
        .where(runs.c.started_at >= since, runs.c.started_at < until, runs.c.path.is_not(None))
        .group_by(at, runs.c.path)
        .order_by(at)
    )
    if tenant is not None:
        query = query.where(runs.c.tenant == tenant)
    points: dict[int, dict[Path, int]] = {}
    for row in conn.execute(query):
        points.setdefault(row.at, dict.fromkeys(PATHS, 0))[row.path] = row.runs
    return [PathPoint(at=from_unix_ns(at_ns), runs=counts) for at_ns, counts in points.items()]
