"""The table of the gate's verdicts. Rows are added, never rewritten."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Index, String, Table, select

from handrail.evals.gate.decision_rule import GateVerdict
from handrail.kernel.db.columns import Packed, Timestamp
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.queries import insert_row
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata

gate_verdicts = Table(
    "gate_verdicts",
    metadata,
    Column("gate_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("baseline_id", String, nullable=False),
    Column("eval_run_id", String, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("verdict", Packed, nullable=False),
    Column("decided_at", Timestamp, nullable=False, key="at"),
    Index("ix_gate_verdicts_agent_decided_at", "agent", "at"),
)


@dataclass(frozen=True, kw_only=True)
class GateRecord:
    """A stored verdict; `eval_run_id` is the candidate's."""

    gate_id: str
    agent: str
    baseline_id: str
    eval_run_id: str
    verdict: GateVerdict
    at: datetime


def add_gate(gate: GateRecord) -> Operation[None]:
    """An operation that stores a verdict."""
    row = to_row(gate, gate_verdicts, passed=gate.verdict.passed, verdict=asdict(gate.verdict))
    return insert_row(gate_verdicts, row)


@operation
def list_gates(conn: Connection, agent: str, limit: int) -> list[GateRecord]:
    """An agent's verdicts, the newest first."""
    query = select(gate_verdicts).where(gate_verdicts.c.agent == agent).limit(limit)
    rows = conn.execute(query.order_by(gate_verdicts.c.at.desc(), gate_verdicts.c.gate_id.desc()))
    return [from_row(GateRecord, row, verdict=_verdict(row.verdict)) for row in rows]


_SHARES = ("baseline", "candidate", "drop", "margin", "variance", "population_variance", "flip")


def _verdict(stored: Mapping[str, Any]) -> GateVerdict:
    shares = {name: None if stored[name] is None else Fraction(stored[name]) for name in _SHARES}
    cases = {name: tuple(stored[name]) for name in ("newly_failing", "newly_passing")}
    return GateVerdict(**{**stored, **shares, **cases})
