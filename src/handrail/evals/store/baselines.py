"""The table of baselines, each a pointer to a complete eval run. Rows are added, never rewritten: of those for one
agent and one state of its set, the newest counts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Row, String, Table, Text, select

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.engine import insert_new
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
    Column("at_ns", BigInteger, nullable=False),
    Column("trials", Integer, nullable=False, server_default="1"),
    Column("scored_by", Text, nullable=False, server_default="{}"),
    Index("ix_baselines_agent_set_hash", "agent", "set_hash", "at_ns"),
)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The eval run to beat, for one agent and one state of its set; `agent_hash` is that of the agent it was run on.

    `trials` is how often each case was tried, `scored_by` the hash of everything that scored them, by name.
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


def add_baseline(baseline: Baseline) -> Callable[[Connection], None]:
    """An op that makes `baseline` the one that counts, unless a newer one is there."""
    row = _row(baseline)

    def op(conn: Connection) -> None:
        conn.execute(baselines.insert(), row)

    return op


def bring_baseline(baseline: Baseline) -> Callable[[Connection], None]:
    """The same for one of elsewhere: an op that does nothing where one of its id is there."""
    row = _row(baseline)

    def op(conn: Connection) -> None:
        insert_new(conn, baselines, row)

    return op


def newest_baseline(conn: Connection, agent: str, set_hash: str) -> Baseline | None:
    """The one that counts."""
    query = select(baselines).where(baselines.c.agent == agent, baselines.c.set_hash == set_hash)
    row = conn.execute(query.order_by(baselines.c.at_ns.desc(), baselines.c.baseline_id.desc()).limit(1)).one_or_none()
    return None if row is None else _baseline(row)


def load_baseline(conn: Connection, baseline_id: str) -> Baseline:
    """The baseline of that id. Raises NotFound."""
    row = conn.execute(select(baselines).where(baselines.c.baseline_id == baseline_id)).one_or_none()
    if row is None:
        raise NotFound(f"no baseline {baseline_id}; `handrail eval baseline` sets one")
    return _baseline(row)


def list_baselines(conn: Connection, agent: str, limit: int) -> list[Baseline]:
    """An agent's, for any state of its set, the newest first."""
    query = select(baselines).where(baselines.c.agent == agent).limit(limit)
    rows = conn.execute(query.order_by(baselines.c.at_ns.desc(), baselines.c.baseline_id.desc()))
    return [_baseline(row) for row in rows]


def _row(baseline: Baseline) -> dict[str, Any]:
    return {
        "baseline_id": baseline.baseline_id,
        "agent": baseline.agent,
        "set_hash": baseline.set_hash,
        "agent_hash": baseline.agent_hash,
        "eval_run_id": baseline.eval_run_id,
        "by": baseline.by,
        "at_ns": unix_ns(baseline.at),
        "trials": baseline.trials,
        "scored_by": json.dumps(dict(baseline.scored_by)),
    }


def _baseline(row: Row[Any]) -> Baseline:
    return Baseline(
        baseline_id=row.baseline_id,
        agent=row.agent,
        set_hash=row.set_hash,
        agent_hash=row.agent_hash,
        eval_run_id=row.eval_run_id,
        by=row.by,
        at=from_unix_ns(row.at_ns),
        trials=row.trials,
        scored_by=json.loads(row.scored_by),
    )
