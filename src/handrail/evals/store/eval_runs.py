"""The tables of eval runs and their trials; each trial is committed as it ends."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    func,
    select,
    update,
)

from handrail.evals.scorers.score import TrialScore
from handrail.kernel.db.columns import Money, Packed, Timestamp
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.queries import insert_row
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("eval_run_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("set_hash", String, nullable=False),
    Column("cases", Integer, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    # Packed keeps the order of the scorers, which Json would sort.
    Column("scorer_hashes", Packed, key="scored_by"),
    Index("ix_eval_runs_agent_started_at", "agent", "started_at"),
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
    Column("value", Float, nullable=False),
    Column("fields", Packed, nullable=False),
    Column("scores", Packed, nullable=False),
    Column("notes", Packed, nullable=False),
    Column("observed", Packed, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("cost", Money, nullable=False),
    Column("model", String),
    Column("agent_hash", String),
    Column("error", String),
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One execution of one case.

    Args:
        case_id: The case.
        trial: Its number among the trials of the case, from 1.
        run_id: Its run; empty if it had none.
        outcome: The name of the run's outcome.
        path: The run's path; None if it has none yet.
        score: How well the trial met its case.
        observed: The fields that the eval spec's `observe` extracted.
        duration_ns: How long it took, in nanoseconds.
        cost: What it cost, in billionths of a dollar.
        model: The model that answered, if one did.
        agent_hash: The agent's fingerprint, if the run reached a model.
        error: The infrastructure fault that failed it; such a trial says nothing about the agent and is in no score.
    """

    case_id: str
    trial: int
    run_id: str
    outcome: str
    path: str | None
    score: TrialScore
    observed: Mapping[str, Any]
    duration_ns: int
    cost: NanoUsd
    model: str | None = None
    agent_hash: str | None = None
    error: str | None = None

    @property
    def value(self) -> float:
        """How well the trial met its case, from 0 to 1."""
        return self.score.value


@dataclass(frozen=True, kw_only=True)
class EvalRunView:
    """An eval run. `ended_at` is None while it runs, and if it was stopped before its last trial.

    `scored_by` has the hash of everything that scores its trials, by name; None where that was not recorded.
    """

    eval_run_id: str
    agent: str
    set_hash: str
    cases: int
    started_at: datetime
    ended_at: datetime | None
    scored_by: Mapping[str, str] | None = None


def most_common_agent_hash(trials: Sequence[Trial]) -> str | None:
    """The most common fingerprint of the trials that reached a model; None where none did.

    An agent whose prompt, settings or tools depend on the request has several.
    """
    return most_common(Counter(trial.agent_hash for trial in trials if trial.agent_hash is not None))


def most_common(counts: Mapping[str, int]) -> str | None:
    """The key with the highest count, the first in sorting order if several have it; None without keys."""
    return min(counts, key=lambda key: (-counts[key], key), default=None)


def start_eval_run(
    eval_run_id: str,
    agent: str,
    set_hash: str,
    cases: int,
    at: datetime,
    scored_by: Mapping[str, str] | None = None,
) -> Operation[None]:
    """An operation that starts an eval run."""
    view = EvalRunView(
        eval_run_id=eval_run_id,
        agent=agent,
        set_hash=set_hash,
        cases=cases,
        started_at=at,
        ended_at=None,
        scored_by=scored_by,
    )
    return insert_row(eval_runs, to_row(view, eval_runs))


def add_trial(eval_run_id: str, trial: Trial) -> Operation[None]:
    """An operation that stores a trial."""
    score = trial.score
    results = {"fields": score.fields, "scores": score.scores, "notes": score.notes, "passed": score.passed}
    return insert_row(trials, to_row(trial, trials, eval_run_id=eval_run_id, value=trial.value, **results))


@operation
def end_eval_run(conn: Connection, eval_run_id: str, at: datetime) -> None:
    """Marks an eval run as complete; one that is complete already keeps its time."""
    unmarked = update(eval_runs).where(eval_runs.c.eval_run_id == eval_run_id, eval_runs.c.ended_at.is_(None))
    conn.execute(unmarked.values(ended_at=at))


def import_eval_run(view: EvalRunView, imported: Sequence[Trial]) -> Operation[None]:
    """An operation that stores an eval run of another store with its trials, unless it is stored already."""
    return _import_eval_run(to_row(view, eval_runs), [add_trial(view.eval_run_id, trial) for trial in imported])


@operation
def _import_eval_run(conn: Connection, row: Mapping[str, Any], add_trials: Sequence[Operation[None]]) -> None:
    if insert_new(conn, eval_runs, row):
        for add in add_trials:
            add(conn)


@operation
def list_eval_runs(conn: Connection, agent: str | None, limit: int, before: str | None = None) -> list[EvalRunView]:
    """Eval runs, the newest first.

    `before` is the id of the last eval run on the previous page; an unknown id gives an empty list.
    """
    query = select(eval_runs).order_by(eval_runs.c.started_at.desc(), eval_runs.c.eval_run_id.desc()).limit(limit)
    if agent is not None:
        query = query.where(eval_runs.c.agent == agent)
    if before is not None:
        query = query.where(_older_than(before))
    return [from_row(EvalRunView, row) for row in conn.execute(query)]


def _older_than(eval_run_id: str) -> ColumnElement[bool]:
    started = select(eval_runs.c.started_at).where(eval_runs.c.eval_run_id == eval_run_id).scalar_subquery()
    return (eval_runs.c.started_at < started) | (
        (eval_runs.c.started_at == started) & (eval_runs.c.eval_run_id < eval_run_id)
    )


@operation
def load_eval_run(conn: Connection, eval_run_id: str) -> tuple[EvalRunView, Sequence[Trial]]:
    """An eval run and its trials so far, by case and trial. Raises NotFound."""
    row = conn.execute(select(eval_runs).where(eval_runs.c.eval_run_id == eval_run_id)).one_or_none()
    if row is None:
        raise NotFound(f"no eval run {eval_run_id}; `handrail eval list` shows the newest")
    query = select(trials).where(trials.c.eval_run_id == eval_run_id).order_by(trials.c.case_id, trials.c.trial)
    return from_row(EvalRunView, row), [trial_from_row(trial_row) for trial_row in conn.execute(query)]


@operation
def mean_trial_cost(conn: Connection, agent: str) -> NanoUsd | None:
    """The mean cost of a paid trial in the agent's newest eval run that cost anything; None without such a run."""
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


def trial_from_row(row: Row[Any]) -> Trial:
    """The trial in a row of `trials`."""
    return from_row(Trial, row, score=from_row(TrialScore, row))
