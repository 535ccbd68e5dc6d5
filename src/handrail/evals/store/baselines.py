"""The table of baselines, each of which points at a complete eval run.

Rows are added, never rewritten: for one agent and one version of its eval set, the newest baseline is in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Column, Connection, Index, Integer, String, Table, select

from handrail.kernel.db.columns import Packed, Timestamp
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.queries import insert_row
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound

baselines = Table(
    "baselines",
    metadata,
    Column("baseline_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("set_hash", String, nullable=False),
    Column("agent_hash", String),
    Column("eval_run_id", String, nullable=False),
    Column("by", String, nullable=False),
    Column("set_at", Timestamp, nullable=False, key="at"),
    Column("trials", Integer, nullable=False),
    Column("scorer_hashes", Packed, nullable=False, key="scored_by"),
    Index("ix_baselines_agent_set_hash", "agent", "set_hash", "at"),
)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The eval run to beat, for one agent and one version of its eval set; `agent_hash` is the fingerprint it had.

    `trials` is the number of trials of each case, `scored_by` the hash of everything that scored them, by name.
    """

    baseline_id: str
    agent: str
    set_hash: str
    agent_hash: str | None
    eval_run_id: str
    by: str
    at: datetime
    trials: int = 1
    scored_by: Mapping[str, str] = field(default_factory=dict)


def add_baseline(baseline: Baseline) -> Operation[None]:
    """An operation that puts `baseline` in force, unless there is a newer one."""
    return insert_row(baselines, to_row(baseline, baselines))


def import_baseline(baseline: Baseline) -> Operation[bool]:
    """An operation that stores a baseline of another store, unless it is stored already."""
    return operation(insert_new)(baselines, to_row(baseline, baselines))


@operation
def newest_baseline(conn: Connection, agent: str, set_hash: str) -> Baseline | None:
    """The baseline in force, or None."""
    query = select(baselines).where(baselines.c.agent == agent, baselines.c.set_hash == set_hash)
    row = conn.execute(query.order_by(baselines.c.at.desc(), baselines.c.baseline_id.desc()).limit(1)).one_or_none()
    return None if row is None else from_row(Baseline, row)


@operation
def load_baseline(conn: Connection, baseline_id: str) -> Baseline:
    """The baseline of that id. Raises NotFound."""
    row = conn.execute(select(baselines).where(baselines.c.baseline_id == baseline_id)).one_or_none()
    if row is None:
        raise NotFound(f"no baseline {baseline_id}; `handrail eval baseline` creates one")
    return from_row(Baseline, row)


@operation
def list_baselines(conn: Connection, agent: str, limit: int) -> list[Baseline]:
    """An agent's baselines for any version of its eval set, the newest first."""
    query = select(baselines).where(baselines.c.agent == agent).limit(limit)
    rows = conn.execute(query.order_by(baselines.c.at.desc(), baselines.c.baseline_id.desc()))
    return [from_row(Baseline, row) for row in rows]
