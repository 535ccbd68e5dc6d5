"""Background work as rows: written in the transaction of its cause, claimed with a lease, idempotent by key.

A job is waiting, done or dead. A claim counts an attempt; a worker whose lease ran out has lost the job, and its
`finish`, `retry_later` or `give_up` then changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Index, Integer, Select, String, Table, Text, or_, select, update

from handrail.kernel.serialization import canonical_json

from .columns import Json, Timestamp
from .engine import insert_new
from .operation import Operation, operation
from .schema import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", String, nullable=False),
    Column("due_at", Timestamp, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", String),
    Column("lease_until", Timestamp),
    Column("error", Text),
    Index("ix_jobs_state_due_at", "state", "due_at"),
)


@dataclass(frozen=True)
class Job:
    """A claimed job.

    Attributes:
        attempts: The claims so far, this one included, which tells it from every other.
        worker: Who holds this claim.
        lost_worker: Who held the claim before, if its lease ran out: that worker died, or takes longer than the lease.
    """

    key: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int
    worker: str
    lost_worker: str | None = None


def enqueue(kind: str, key: str, payload: Mapping[str, Any], due: datetime) -> Operation[bool]:
    """Adds a job.

    Args:
        kind: Which handler runs it.
        key: What identifies the job: a key is taken once, for ever.
        payload: JSON that the handler gets.
        due: When it may be claimed first.

    Returns:
        An operation that returns whether the job is new.
    """
    row = {
        "key": key,
        "kind": kind,
        "payload": canonical_json(payload),
        "state": "waiting",
        "due_at": due,
        "attempts": 0,
    }
    return operation(insert_new)(jobs, row)


def claim(kinds: Collection[str], worker: str, now: datetime, lease: timedelta) -> Operation[Job | None]:
    """Takes the job that has been due longest.

    Args:
        kinds: The kinds of jobs to choose from.
        worker: Who takes it; unique among workers.
        now: The time.
        lease: How long the worker has until another may claim the job.

    Returns:
        An operation that returns the job, or None where none is due.
    """
    due = (
        select(jobs)
        .where(jobs.c.state == "waiting", jobs.c.kind.in_(sorted(kinds)), jobs.c.due_at <= now)
        .where(or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= now))
        .order_by(jobs.c.due_at, jobs.c.key)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return _claim(due, worker, now + lease)


@operation
def _claim(conn: Connection, due: Select[Any], worker: str, until: datetime) -> Job | None:
    row = conn.execute(due).one_or_none()
    if row is None:
        return None
    attempts = row.attempts + 1
    claimed = update(jobs).where(jobs.c.key == row.key)
    conn.execute(claimed.values(attempts=attempts, worker=worker, lease_until=until))
    # A worker that gives a job back takes its name off.
    return Job(row.key, row.kind, row.payload, attempts, worker, lost_worker=row.worker)


def finish(job: Job) -> Operation[bool]:
    """Ends a job; the operation returns whether this claim still held it."""
    return _release(job, {"state": "done", "error": None})


def retry_later(job: Job, due: datetime, error: str) -> Operation[bool]:
    """Gives a job back, to be claimed again from `due` on; the operation returns whether this claim still held it."""
    return _release(job, {"due_at": due, "error": error})


def give_up(job: Job, error: str) -> Operation[bool]:
    """Marks a job dead: it is kept with its error, and never claimed again.

    The operation returns whether this claim still held it.
    """
    return _release(job, {"state": "dead", "error": error})


@operation
def _release(conn: Connection, job: Job, values: Mapping[str, Any]) -> bool:
    claimed = (jobs.c.key == job.key, jobs.c.attempts == job.attempts, jobs.c.worker == job.worker)
    released = update(jobs).where(*claimed).values({"worker": None, "lease_until": None, **values})
    return conn.execute(released).rowcount == 1
