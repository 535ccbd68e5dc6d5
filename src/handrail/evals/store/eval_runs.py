"""The evals' tables: one row per eval run, one per trial, each trial committed as it ends."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    func,
    select,
    update,
)

from handrail.evals.scorers.score import Verdict
from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import as_json

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("eval_run_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("set_hash", String, nullable=False),
    Column("cases", Integer, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger),
    Column("scored_by", Text),
    Index("ix_eval_runs_agent_started_ns", "agent", "started_ns"),
)
trials = Table(
    "trials",
    metadata,
    Column("eval_run_id", String, primary_key=True),
    Column("case_id", String, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("path", String),
    Column("passed", Boolean, nullable=False),
    Column("fields", Text, nullable=False),
    Column("observed", Text, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("model", String),
    Column("agent_hash", String),
    Column("value", Float, nullable=False, server_default="0"),
    Column("error", String),
    Column("scores", Text),
)
_ADD_TRIAL = trials.insert()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One execution of one case.

    `error` is a fault of the infrastructure, which is none of the agent's.
    """

    case_id: str
    trial: int
    run_id: str
    outcome: str
    path: str | None
    verdict: Verdict
    observed: Mapping[str, Any]
    duration_ns: int
    cost: NanoUsd
    model: str | None = None
    agent_hash: str | None = None
    error: str | None = None

    @property
    def value(self) -> float:
        """How well it did, 0 to 1."""
        return self.verdict.value


@dataclass(frozen=True, kw_only=True)
class EvalRunView:
    """An eval run as it stands: `ended_at` is None where it was stopped before its last trial.

    `scored_by` is the hash of everything that scores its trials, by name; None where it began before that was kept.
    """

    eval_run_id: str
    agent: str
    set_hash: str
    cases: int
    started_at: datetime
    ended_at: datetime | None
    scored_by: Mapping[str, str] | None = None


def agent_hash_of(trials: Sequence[Trial]) -> str | None:
    """The fingerprint that most of the trials which reached a model have; None where none did.

    An agent that draws its prompt or its settings has several.
    """
    return usual(Counter(trial.agent_hash for trial in trials if trial.agent_hash is not None))


def usual(counts: Mapping[str, int]) -> str | None:
    """The most frequent of them, of equals the one that sorts first; None where there is none."""
    return min(counts, key=lambda found: (-counts[found], found), default=None)


def start(
    eval_run_id: str,
    agent: str,
    set_hash: str,
    cases: int,
    at: datetime,
    scored_by: Mapping[str, str] | None = None,
) -> Callable[[Connection], None]:
    """An op that opens an eval run."""
    row = {
        "eval_run_id": eval_run_id,
        "agent": agent,
        "set_hash": set_hash,
        "cases": cases,
        "started_ns": unix_ns(at),
        "scored_by": None if scored_by is None else json.dumps(dict(scored_by)),
    }

    def op(conn: Connection) -> None:
        conn.execute(eval_runs.insert(), row)

    return op


def add_trial(eval_run_id: str, trial: Trial) -> Callable[[Connection], None]:
    """An op that keeps a trial."""
    row = {
        "eval_run_id": eval_run_id,
        "case_id": trial.case_id,
        "trial": trial.trial,
        "run_id": trial.run_id,
        "outcome": trial.outcome,
        "path": trial.path,
        "passed": trial.verdict.passed,
        "fields": json.dumps(dict(trial.verdict.fields)),
        "observed": as_json(trial.observed).decode(),
        "duration_ns": trial.duration_ns,
        "cost": trial.cost,
        "model": trial.model,
        "agent_hash": trial.agent_hash,
        "value": trial.value,
        "error": trial.error,
        "scores": as_json({"scores": trial.verdict.scores, "notes": trial.verdict.notes}).decode(),
    }

    def op(conn: Connection) -> None:
        conn.execute(_ADD_TRIAL, row)

    return op


def end(eval_run_id: str, at: datetime) -> Callable[[Connection], None]:
    """An op that marks an eval run as complete, once: one that is gone on with keeps the time it has."""
    unmarked = update(eval_runs).where(eval_runs.c.eval_run_id == eval_run_id, eval_runs.c.ended_ns.is_(None))

    def op(conn: Connection) -> None:
        conn.execute(unmarked, {"ended_ns": unix_ns(at)})

    return op


def bring_eval_run(view: EvalRunView, made: Sequence[Trial]) -> Callable[[Connection], None]:
    """An op that keeps an eval run of elsewhere with its trials, unless one of its id is there."""
    row = {
        "eval_run_id": view.eval_run_id,
        "agent": view.agent,
        "set_hash": view.set_hash,
        "cases": view.cases,
        "started_ns": unix_ns(view.started_at),
        "ended_ns": None if view.ended_at is None else unix_ns(view.ended_at),
        "scored_by": None if view.scored_by is None else json.dumps(dict(view.scored_by)),
    }

    def op(conn: Connection) -> None:
        if insert_new(conn, eval_runs, row):
            for trial in made:
                add_trial(view.eval_run_id, trial)(conn)

    return op


def list_eval_runs(conn: Connection, agent: str | None, limit: int, before: str | None = None) -> list[EvalRunView]:
    """The newest first; `before` is the last eval run of the page before. An unknown one ends the list."""
    query = select(eval_runs).order_by(eval_runs.c.started_ns.desc(), eval_runs.c.eval_run_id.desc()).limit(limit)
    if agent is not None:
        query = query.where(eval_runs.c.agent == agent)
    if before is not None:
        query = query.where(_older_than(before))
    return [_view(row) for row in conn.execute(query)]


def _older_than(eval_run_id: str) -> ColumnElement[bool]:
    began = select(eval_runs.c.started_ns).where(eval_runs.c.eval_run_id == eval_run_id).scalar_subquery()
    return (eval_runs.c.started_ns < began) | (
        (eval_runs.c.started_ns == began) & (eval_runs.c.eval_run_id < eval_run_id)
    )


def load_eval_run(conn: Connection, eval_run_id: str) -> tuple[EvalRunView, Sequence[Trial]]:
    """An eval run and its trials so far, by case and trial. Raises NotFound."""
    row = conn.execute(select(eval_runs).where(eval_runs.c.eval_run_id == eval_run_id)).one_or_none()
    if row is None:
        raise NotFound(f"no eval run {eval_run_id}; `handrail eval list` shows the newest")
    query = select(trials).where(trials.c.eval_run_id == eval_run_id).order_by(trials.c.case_id, trials.c.trial)
    return _view(row), [read_trial(each) for each in conn.execute(query)]


def cost_per_trial(conn: Connection, agent: str) -> NanoUsd | None:
    """What a paid trial of the agent cost on average, in its newest eval run that cost anything; None without one."""
    newest = (
        select(func.sum(trials.c.cost), func.count())
        .join(eval_runs, eval_runs.c.eval_run_id == trials.c.eval_run_id)
        .where(eval_runs.c.agent == agent, trials.c.cost > 0)
        .group_by(trials.c.eval_run_id)
        .order_by(trials.c.eval_run_id.desc())
        .limit(1)
    )
    row = conn.execute(newest).one_or_none()
    return None if row is None else NanoUsd(-(-int(row[0]) // int(row[1])))


def _view(row: Row[Any]) -> EvalRunView:
    return EvalRunView(
        eval_run_id=row.eval_run_id,
        agent=row.agent,
        set_hash=row.set_hash,
        cases=row.cases,
        started_at=from_unix_ns(row.started_ns),
        ended_at=None if row.ended_ns is None else from_unix_ns(row.ended_ns),
        scored_by=None if row.scored_by is None else json.loads(row.scored_by),
    )


def read_trial(row: Row[Any]) -> Trial:
    more = json.loads(row.scores) if row.scores else {}
    return Trial(
        case_id=row.case_id,
        trial=row.trial,
        run_id=row.run_id,
        outcome=row.outcome,
        path=row.path,
        verdict=Verdict(fields=json.loads(row.fields), **more),
        observed=json.loads(row.observed),
        duration_ns=row.duration_ns,
        cost=NanoUsd(row.cost),
        model=row.model,
        agent_hash=row.agent_hash,
        error=row.error,
    )
