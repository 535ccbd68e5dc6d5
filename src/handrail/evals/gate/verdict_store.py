"""The table of the gate's verdicts. Rows are added, never rewritten."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Index, Row, String, Table, Text, select

from handrail.evals.gate.decision_rule import GateVerdict
from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.schema import metadata

gates = Table(
    "gates",
    metadata,
    Column("gate_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("baseline_id", String, nullable=False),
    Column("eval_run_id", String, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Index("ix_gates_agent_at_ns", "agent", "at_ns"),
)


@dataclass(frozen=True, kw_only=True)
class GateView:
    """A verdict of the gate as it was kept: `eval_run_id` is the candidate's."""

    gate_id: str
    agent: str
    baseline_id: str
    eval_run_id: str
    verdict: GateVerdict
    at: datetime


def add_gate(gate: GateView) -> Callable[[Connection], None]:
    """An op that keeps a verdict."""
    row = {
        "gate_id": gate.gate_id,
        "agent": gate.agent,
        "baseline_id": gate.baseline_id,
        "eval_run_id": gate.eval_run_id,
        "passed": gate.verdict.passed,
        "body": _body(gate.verdict),
        "at_ns": unix_ns(gate.at),
    }

    def op(conn: Connection) -> None:
        conn.execute(gates.insert(), row)

    return op


def list_gates(conn: Connection, agent: str, limit: int) -> list[GateView]:
    """What the gate said of an agent, the newest first."""
    query = select(gates).where(gates.c.agent == agent).limit(limit)
    return [_gate(row) for row in conn.execute(query.order_by(gates.c.at_ns.desc(), gates.c.gate_id.desc()))]


_SHARES = ("baseline", "candidate", "drop", "margin", "variance", "population_variance", "flip")


def _body(verdict: GateVerdict) -> str:
    return json.dumps(asdict(verdict), default=str)


def _verdict(passed: bool, body: str) -> GateVerdict:
    kept = json.loads(body)
    shares = {name: None if kept.get(name) is None else Fraction(kept[name]) for name in _SHARES}
    moved = {name: tuple(kept[name]) for name in ("newly_failing", "newly_passing")}
    return GateVerdict(**{**_BEFORE, **kept, **shares, **moved, "passed": passed})


# What a verdict of one trial of each case, which had no more in it, goes by.
_BEFORE = {"trials": 1, "baseline_trials": 1, "decided_by": "plain rule", "measure": ""}


def _gate(row: Row[Any]) -> GateView:
    return GateView(
        gate_id=row.gate_id,
        agent=row.agent,
        baseline_id=row.baseline_id,
        eval_run_id=row.eval_run_id,
        verdict=_verdict(row.passed, row.body),
        at=from_unix_ns(row.at_ns),
    )
