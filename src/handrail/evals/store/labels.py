"""The tables of labels: which trials were sampled for people, and each person's label.

Rows are added, never rewritten: a person labels a trial once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, String, Table, and_, func, select

from handrail.kernel.db.columns import Timestamp
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.db.schema import metadata

label_samples = Table(
    "label_samples",
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
    Column("labelled_at", Timestamp, nullable=False, key="at"),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A trial sampled for people: the `position` at which they see it, and how many `people` should label it.

    `judge_hash` is the fingerprint of the judge that scored it, `probability` the chance that it was sampled, and
    `seed` that of the draw, by which it can be repeated.
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
    """A person's label of a trial; `right` is None where they skipped it."""

    eval_run_id: str
    judge: str
    case_id: str
    trial: int
    by: str
    right: bool | None
    at: datetime


def add_samples(drawn: Sequence[Sample]) -> Operation[None]:
    """An operation that stores a sample; trials that were sampled before stay as they are."""
    rows = [to_row(sample, label_samples) for sample in drawn]
    return _add_samples(rows)


@operation
def _add_samples(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        insert_new(conn, label_samples, row)


def add_label(label: Label) -> Operation[bool]:
    """An operation that stores a label, and returns whether it is this person's first of the trial."""
    return operation(insert_new)(labels, to_row(label, labels))


@operation
def load_samples(conn: Connection, eval_run_id: str, judge: str) -> list[Sample]:
    """The sample of an eval run for a judge, in the order in which people see it."""
    query = select(label_samples).where(label_samples.c.eval_run_id == eval_run_id, label_samples.c.judge == judge)
    return [from_row(Sample, row) for row in conn.execute(query.order_by(label_samples.c.position))]


@operation
def load_labels(conn: Connection, eval_run_id: str, judge: str) -> list[Label]:
    """People's labels of an eval run's trials, oldest first."""
    query = select(labels).where(labels.c.eval_run_id == eval_run_id, labels.c.judge == judge)
    return [from_row(Label, row) for row in conn.execute(query.order_by(labels.c.at, labels.c.by))]


@operation
def list_labelled_eval_runs(conn: Connection, agent: str, judge: str) -> list[tuple[str, str]]:
    """The (eval run id, judge's hash) of an agent's labelled eval runs: most labels first, then the newest."""
    keys = ("eval_run_id", "judge", "case_id", "trial")
    same_trial = and_(*(labels.c[name] == label_samples.c[name] for name in keys))
    count = func.count(labels.c.by)
    query = (
        select(label_samples.c.eval_run_id, label_samples.c.judge_hash)
        .join(labels, same_trial)
        .where(label_samples.c.agent == agent, label_samples.c.judge == judge, labels.c.right.is_not(None))
        .group_by(label_samples.c.eval_run_id, label_samples.c.judge_hash)
        .order_by(count.desc(), label_samples.c.eval_run_id.desc())
    )
    return [(row.eval_run_id, row.judge_hash) for row in conn.execute(query)]
