"""Background work as rows: written in the transaction of what causes it, claimed with a lease, idempotent by key.

A job is waiting, done or dead. A claim counts an attempt; a worker whose lease ran out has lost the job, and its
`finish` or `retry_later` then changes nothing.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, String, Table, Text, or_, select, update

from handrail.kernel.clock import unix_ns

from .engine import insert_new
from .schema import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("due_ns", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", String),
    Column("lease_until_ns", BigInteger),
    Column("error", Text),
    Index("ix_jobs_state_due_ns", "state", "due_ns"),
)


@dataclass(frozen=True)
class Job:
    """A claimed job; `attempts` includes this one, and tells this claim from every other."""

    key: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int
    worker: str


def enqueue(kind: str, key: str, payload: Mapping[str, Any], due: datetime) -> Callable[[Connection], bool]:
    """An op that adds a job, and says whether it is new: a key is taken once, for ever."""
    row = {
        "key": key,
        "kind": kind,
        "payload": json.dumps(payload),
        "state": "waiting",
        "due_ns": unix_ns(due),
        "attempts": 0,
    }

    return lambda conn: insert_new(conn, jobs, row)


def claim(kinds: Collection[str], worker: str, now: datetime, lease: timedelta) -> Callable[[Connection], Job | None]:
    """An op that takes the job due longest of `kinds`, for `lease`, or finds none."""
    now_ns = unix_ns(now)
    due = (
        select(jobs)
        .where(jobs.c.state == "waiting", jobs.c.kind.in_(sorted(kinds)), jobs.c.due_ns <= now_ns)
        .where(or_(jobs.c.lease_until_ns.is_(None), jobs.c.lease_until_ns <= now_ns))
        .order_by(jobs.c.due_ns, jobs.c.key)
        .limit(1)
        .with_for_update(skip_locked=True)
    )

    def op(conn: Connection) -> Job | None:
        row = conn.execute(due).one_or_none()
        if row is None:
            return None
        conn.execute(
            update(jobs)
            .where(jobs.c.key == row.key)
            .values(attempts=row.attempts + 1, worker=worker, lease_until_ns=unix_ns(now + lease))
        )
        return Job(row.key, row.kind, json.loads(row.payload), row.attempts + 1, worker)

    return op


def finish(job: Job) -> Callable[[Connection], bool]:
    """An op that ends a job, and says whether this claim still held it."""
    return _release(job, state="done", error=None)


def retry_later(job: Job, due: datetime, error: str) -> Callable[[Connection], bool]:
    """An op that gives a job back, to be claimed again from `due` on."""
    return _release(job, due_ns=unix_ns(due), error=error)


def give_up(job: Job, error: str) -> Callable[[Connection], bool]:
    """An op that marks a job dead: it is kept, with its error, and never claimed again."""
    return _release(job, state="dead", error=error)


def _release(job: Job, **values: Any) -> Callable[[Connection], bool]:
    held = (jobs.c.key == job.key, jobs.c.attempts == job.attempts, jobs.c.worker == job.worker)

    def op(conn: Connection) -> bool:
        values_now = {"worker": None, "lease_until_ns": None, **values}
        return conn.execute(update(jobs).where(*held).values(values_now)).rowcount == 1

    return op
