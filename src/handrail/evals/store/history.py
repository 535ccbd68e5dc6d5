"""An agent's eval runs over time, and the history of one case; the number of queries does not depend on the trials."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select

from handrail.evals.scorers.score import Score, mean_score
from handrail.kernel.db.operation import operation
from handrail.kernel.money import NanoUsd

from .eval_runs import (
    EvalRunView,
    Trial,
    eval_runs,
    list_eval_runs,
    most_common,
    trial_from_row,
    trials,
)


@dataclass(frozen=True, kw_only=True)
class EvalRunSummary:
    """An eval run and its results.

    `trials` counts all trials, `passed` those that got everything right, and `errors` those that the infrastructure
    failed, which are in no score. `agent_hash` is the most common fingerprint of the trials that reached a model, None
    where none did; `models` are the names of those that answered.
    """

    eval_run: EvalRunView
    score: Score | None
    trials: int
    passed: int
    errors: int
    cost: NanoUsd
    agent_hash: str | None
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case in one eval run, with its trials by number.

    `agent_hash` is that of the eval run's summary. The case's own may differ: an agent that chooses its tools by the
    input has several.
    """

    eval_run: EvalRunView
    trials: tuple[Trial, ...]
    agent_hash: str | None

    @property
    def value(self) -> float | None:
        """The mean of its trials, from 0 to 1; None where the infrastructure failed all of them."""
        values = [trial.value for trial in self.trials if trial.error is None]
        return sum(values) / len(values) if values else None


@operation
def list_eval_agents(conn: Connection) -> list[str]:
    """The agents that have eval runs, the one with the newest eval run first."""
    newest = func.max(eval_runs.c.started_at)
    query = select(eval_runs.c.agent).group_by(eval_runs.c.agent).order_by(newest.desc(), eval_runs.c.agent)
    return list(conn.execute(query).scalars())


@operation
def list_eval_run_summaries(
    conn: Connection, agent: str | None, limit: int, before: str | None = None
) -> list[EvalRunSummary]:
    """Eval runs with their results, the newest first.

    `before` is the id of the last eval run on the previous page; an unknown id gives an empty list.
    """
    return _summaries(conn, list_eval_runs(agent, limit, before)(conn))


@operation
def case_history(conn: Connection, agent: str, case_id: str, limit: int) -> list[CaseResult]:
    """The case in the agent's newest `limit` eval runs, the newest first; eval runs without the case are left out."""
    views = list_eval_runs(agent, limit)(conn)
    query = select(trials).where(_in_eval_runs(views), trials.c.case_id == case_id).order_by(trials.c.trial)
    by_eval_run: defaultdict[str, list[Trial]] = defaultdict(list)
    for row in conn.execute(query):
        by_eval_run[row.eval_run_id].append(trial_from_row(row))
    agents = _agents(conn, views)
    return [
        CaseResult(
            eval_run=view,
            trials=tuple(by_eval_run[view.eval_run_id]),
            agent_hash=_most_common_hash(agents.get(view.eval_run_id, [])),
        )
        for view in views
        if view.eval_run_id in by_eval_run
    ]


def _summaries(conn: Connection, views: Sequence[EvalRunView]) -> list[EvalRunSummary]:
    scored = trials.c.error.is_(None)
    by_case = select(
        trials.c.eval_run_id,
        func.count().label("trials"),
        func.sum(case((scored & trials.c.passed, 1), else_=0)).label("passed"),
        func.sum(case((scored, 0), else_=1)).label("errors"),
        func.sum(trials.c.cost).label("cost"),
        func.avg(case((scored, trials.c.value))).label("value"),
    ).group_by(trials.c.eval_run_id, trials.c.case_id)
    cases, agents = _by_eval_run(conn, by_case.where(_in_eval_runs(views))), _agents(conn, views)
    return [_summary(view, cases.get(view.eval_run_id, []), agents.get(view.eval_run_id, [])) for view in views]


def _agents(conn: Connection, views: Sequence[EvalRunView]) -> dict[str, list[Row[Any]]]:
    """How many trials of each eval run had which fingerprint and model."""
    columns = (trials.c.eval_run_id, trials.c.agent_hash, trials.c.model)
    query = select(*columns, func.count().label("trials")).group_by(*columns)
    return _by_eval_run(conn, query.where(_in_eval_runs(views)))


def _in_eval_runs(views: Sequence[EvalRunView]) -> ColumnElement[bool]:
    return trials.c.eval_run_id.in_([view.eval_run_id for view in views])


def _by_eval_run(conn: Connection, query: Select[Any]) -> dict[str, list[Row[Any]]]:
    rows = conn.execute(query.order_by(trials.c.eval_run_id))
    return {key: list(group) for key, group in groupby(rows, key=lambda row: row.eval_run_id)}


def _summary(view: EvalRunView, cases: Sequence[Row[Any]], agents: Sequence[Row[Any]]) -> EvalRunSummary:
    values = [float(row.value) for row in cases if row.value is not None]
    return EvalRunSummary(
        eval_run=view,
        score=mean_score(values) if values else None,
        trials=sum(row.trials for row in cases),
        passed=sum(row.passed for row in cases),
        errors=sum(row.errors for row in cases),
        cost=NanoUsd(sum(int(row.cost) for row in cases)),
        agent_hash=_most_common_hash(agents),
        models=tuple(sorted({row.model for row in agents if row.model is not None})),
    )


def _most_common_hash(agents: Sequence[Row[Any]]) -> str | None:
    counts = Counter[str]()
    for row in agents:
        if row.agent_hash is not None:
            counts[row.agent_hash] += row.trials
    return most_common(counts)
