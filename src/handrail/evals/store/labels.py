"""The labels' tables: which trials were drawn for people to look at, and what each person said. Rows are added, never
rewritten: a person labels a trial once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, RowMapping, String, Table, func, select

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.schema import metadata

samples = Table(
    "samples",
    metadata,
    Column("eval_run_id", String, primary_key=True),
    Column("judge", String, primary_key=True),
    Column("case_id", String, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("agent", String, nullable=False),
    Column("judge_hash", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("people", Integer, nullable=False),
    Column("probability", Float, nullable=False),
    Column("seed", BigInteger, nullable=False),
)
labels = Table(
    "labels",
    metadata,
    Column("eval_run_id", String, primary_key=True),
    Column("judge", String, primary_key=True),
    Column("case_id", String, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("by", String, primary_key=True),
    Column("right", Boolean),
    Column("at_ns", BigInteger, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A trial drawn for people: the `position` at which they get it, and how many of them are to look.

    `judge_hash` is the fingerprint of the judge that scored it; `probability` the chance that the draw took it, with
    the `seed` that it can be repeated by.
    """

    eval_run_id: str
    judge: str
    case_id: str
    trial: int
    agent: str
    judge_hash: str
    position: int
    people: int
    probability: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a person said of a trial; `right` is None where they skipped it."""

    eval_run_id: str
    judge: str
    case_id: str
    trial: int
    by: str
    right: bool | None
    at: datetime


def add_samples(drawn: Sequence[Sample]) -> Callable[[Connection], None]:
    """An op that keeps a draw; what was drawn before stays as it was."""
    rows = [dict(vars(each)) for each in drawn]

    def op(conn: Connection) -> None:
        for row in rows:
            insert_new(conn, samples, row)

    return op


def add_label(label: Label) -> Callable[[Connection], bool]:
    """An op that keeps a label, and says whether it is this person's first of the trial."""
    row = {name: value for name, value in vars(label).items() if name != "at"} | {"at_ns": unix_ns(label.at)}
    return lambda conn: insert_new(conn, labels, row)


def load_samples(conn: Connection, eval_run_id: str, judge: str) -> list[Sample]:
    """What was drawn of an eval run for a judge, in the order in which people get it."""
    query = select(samples).where(samples.c.eval_run_id == eval_run_id, samples.c.judge == judge)
    return [Sample(**row) for row in conn.execute(query.order_by(samples.c.position)).mappings()]


def load_labels(conn: Connection, eval_run_id: str, judge: str) -> list[Label]:
    """What people said of an eval run's trials, first to last."""
    query = select(labels).where(labels.c.eval_run_id == eval_run_id, labels.c.judge == judge)
    return [_label(row) for row in conn.execute(query.order_by(labels.c.at_ns, labels.c.by)).mappings()]


def best_labelled(conn: Connection, agent: str, judge: str) -> list[tuple[str, str]]:
    """(eval run, the judge's hash) of an agent's labelled eval runs, that with most labels first, then the newest."""
    same = (labels.c.eval_run_id == samples.c.eval_run_id, labels.c.judge == samples.c.judge)
    trial = (labels.c.case_id == samples.c.case_id, labels.c.trial == samples.c.trial)
    count = func.count(labels.c.by)
    query = (
        select(samples.c.eval_run_id, samples.c.judge_hash)
        .join(labels, (same[0]) & (same[1]) & (trial[0]) & (trial[1]))
        .where(samples.c.agent == agent, samples.c.judge == judge, labels.c.right.is_not(None))
        .group_by(samples.c.eval_run_id, samples.c.judge_hash)
        .order_by(count.desc(), samples.c.eval_run_id.desc())
    )
    return [(row.eval_run_id, row.judge_hash) for row in conn.execute(query)]


def _label(row: RowMapping) -> Label:
    kept: dict[str, Any] = {name: value for name, value in row.items() if name != "at_ns"}
    return Label(**kept, at=from_unix_ns(row["at_ns"]))
