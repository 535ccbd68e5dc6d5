"""An agent's eval runs over time, and one case through them. Read in a few queries, however many trials there are."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select

from handrail.evals.scorers.score import Score, score
from handrail.evals.store.eval_runs import EvalRunView, Trial, eval_runs, list_eval_runs, read_trial, trials, usual
from handrail.kernel.money import NanoUsd


@dataclass(frozen=True, kw_only=True)
class EvalRunSummary:
    """An eval run and what came of it. `trials` counts all of its trials, `errors` those of them that the
    infrastructure failed and that are in no score, `passed` those that got everything right.

    `agent_hash` is the fingerprint of most of the trials that reached a model, None where none did; `models` are those
    that answered, by name.
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
class CaseAt:
    """One case in one eval run: its trials there, by number.

    `agent_hash` is the eval run's, as in its summary: an agent that draws its tools by the input has another for some
    cases.
    """

    eval_run: EvalRunView
    trials: tuple[Trial, ...]
    agent_hash: str | None

    @property
    def value(self) -> float | None:
        """How well it did, 0 to 1, the mean of the trials that could be judged; None where none could."""
        judged = [each.value for each in self.trials if each.error is None]
        return sum(judged) / len(judged) if judged else None


def list_eval_agents(conn: Connection) -> list[str]:
    """The agents that have eval runs, the one with the newest first."""
    newest = func.max(eval_runs.c.started_ns)
    query = select(eval_runs.c.agent).group_by(eval_runs.c.agent).order_by(newest.desc(), eval_runs.c.agent)
    return list(conn.execute(query).scalars())


def eval_runs_over_time(
    conn: Connection, agent: str | None, limit: int, before: str | None = None
) -> list[EvalRunSummary]:
    """The newest first; `before` is the last eval run of the page before. An unknown one ends the list."""
    return _summaries(conn, list_eval_runs(conn, agent, limit, before))


def case_through_time(conn: Connection, agent: str, case_id: str, limit: int) -> list[CaseAt]:
    """The case in those of the agent's newest `limit` eval runs that tried it, the newest first."""
    views = list_eval_runs(conn, agent, limit)
    query = select(trials).where(_of(views), trials.c.case_id == case_id).order_by(trials.c.trial)
    found: defaultdict[str, list[Trial]] = defaultdict(list)
    for row in conn.execute(query):
        found[row.eval_run_id].append(read_trial(row))
    agents = _agents(conn, views)
    return [
        CaseAt(
            eval_run=each, trials=tuple(found[each.eval_run_id]), agent_hash=_usual(agents.get(each.eval_run_id, []))
        )
        for each in views
        if each.eval_run_id in found
    ]


def _summaries(conn: Connection, views: Sequence[EvalRunView]) -> list[EvalRunSummary]:
    judged = trials.c.error.is_(None)
    by_case = select(
        trials.c.eval_run_id,
        func.count().label("trials"),
        func.sum(case((judged & trials.c.passed, 1), else_=0)).label("passed"),
        func.sum(case((judged, 0), else_=1)).label("errors"),
        func.sum(trials.c.cost).label("cost"),
        func.avg(case((judged, trials.c.value))).label("value"),
    ).group_by(trials.c.eval_run_id, trials.c.case_id)
    cases, agents = _by_eval_run(conn, by_case.where(_of(views))), _agents(conn, views)
    return [_summary(each, cases.get(each.eval_run_id, []), agents.get(each.eval_run_id, [])) for each in views]


def _agents(conn: Connection, views: Sequence[EvalRunView]) -> dict[str, list[Row[Any]]]:
    """How many trials of each eval run were of which fingerprint and model."""
    columns = (trials.c.eval_run_id, trials.c.agent_hash, trials.c.model)
    query = select(*columns, func.count().label("trials")).group_by(*columns)
    return _by_eval_run(conn, query.where(_of(views)))


def _of(views: Sequence[EvalRunView]) -> ColumnElement[bool]:
    return trials.c.eval_run_id.in_([each.eval_run_id for each in views])


def _by_eval_run(conn: Connection, query: Select[Any]) -> dict[str, list[Row[Any]]]:
    rows = conn.execute(query.order_by(trials.c.eval_run_id))
    return {key: list(found) for key, found in groupby(rows, key=lambda row: row.eval_run_id)}


def _summary(view: EvalRunView, cases: Sequence[Row[Any]], agents: Sequence[Row[Any]]) -> EvalRunSummary:
    values = [float(row.value) for row in cases if row.value is not None]
    return EvalRunSummary(
        eval_run=view,
        score=score(values) if values else None,
        trials=sum(row.trials for row in cases),
        passed=sum(row.passed for row in cases),
        errors=sum(row.errors for row in cases),
        cost=NanoUsd(sum(int(row.cost) for row in cases)),
        agent_hash=_usual(agents),
        models=tuple(sorted({row.model for row in agents if row.model is not None})),
    )


def _usual(agents: Sequence[Row[Any]]) -> str | None:
    counts = Counter[str]()
    for row in agents:
        if row.agent_hash is not None:
            counts[row.agent_hash] += row.trials
    return usual(counts)
