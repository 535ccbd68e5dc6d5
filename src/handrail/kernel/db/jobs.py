"""Background work as rows: written in the transaction of its cause, claimed with a lease, idempotent by key.

A job is waiting, done or dead. A claim counts an attempt, unless the job is given back; a worker whose lease ran out
has lost the job, and its `renew_job`, `finish`, `retry_later`, `give_back` or `give_up` then changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    not_,
    select,
    tuple_,
    update,
)

from handrail.kernel.errors import BadInput, NotFound
from handrail.kernel.serialization import canonical_json

from .columns import Json, Timestamp
from .engine import insert_new
from .operation import Operation, operation
from .rows import from_row
from .schema import metadata

JobState: TypeAlias = Literal["waiting", "running", "done", "dead"]
"""What a job is doing: a job is running while a worker's lease on it lasts."""

jobs = Table(
    "jobs",
    metadata,
    Column("key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", String, nullable=False),
    Column("due_at", Timestamp, nullable=False),
    Column("first_due_at", Timestamp, nullable=False),
    Column("claims", Integer, nullable=False),
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
        first_due_at: When the job was due first, or was requeued.
        claims: The claims so far, this one included, which tells it from every other.
        attempts: Those of them that count as attempts, this one included.
        worker: Who holds this claim.
        lost_worker: Who held the claim before, if its lease ran out: that worker died, or takes longer than the lease.
    """

    key: str
    kind: str
    payload: Mapping[str, Any]
    first_due_at: datetime
    claims: int
    attempts: int
    worker: str
    lost_worker: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as lists show it.

    Attributes:
        due_at: From when on it may be claimed.
        first_due_at: When it was due first, or was requeued.
        attempts: The attempts so far, without those that were given back; since it was requeued, if it was.
        worker: Who holds the claim, or held it until the lease ran out.
        lease_until: Until when that worker has it.
        error: Why the last attempt failed or was given back; None if none has.
    """

    key: str
    kind: str
    payload: Mapping[str, Any]
    state: JobState
    due_at: datetime
    first_due_at: datetime
    attempts: int
    worker: str | None
    lease_until: datetime | None
    error: str | None


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
        "first_due_at": due,
        "claims": 0,
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
        .where(not_(_is_leased(now)))
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
    claims, attempts = row.claims + 1, row.attempts + 1
    claimed = update(jobs).where(jobs.c.key == row.key)
    conn.execute(claimed.values(claims=claims, attempts=attempts, worker=worker, lease_until=until))
    # A worker that gives a job back takes its name off.
    return Job(row.key, row.kind, row.payload, row.first_due_at, claims, attempts, worker, lost_worker=row.worker)


@operation
def renew_job(conn: Connection, job: Job, until: datetime) -> bool:
    """Lets a claim last until then; returns whether it still held the job."""
    return conn.execute(update(jobs).where(*_held_by(job)).values(lease_until=until)).rowcount == 1


def finish(job: Job) -> Operation[bool]:
    """Ends a job; the operation returns whether this claim still held it."""
    return _release(job, {"state": "done", "error": None})


def retry_later(job: Job, due: datetime, error: str) -> Operation[bool]:
    """Gives a job back, to be claimed again from `due` on; the operation returns whether this claim still held it."""
    return _release(job, {"due_at": due, "error": error})


def give_back(job: Job, due: datetime, error: str | None) -> Operation[bool]:
    """Gives a job back as `retry_later` does, but this claim does not count as an attempt."""
    return _release(job, {"due_at": due, "error": error, "attempts": job.attempts - 1})


def give_up(job: Job, error: str) -> Operation[bool]:
    """Marks a job dead: it is kept with its error, and not claimed again unless it is requeued.

    The operation returns whether this claim still held it.
    """
    return _release(job, {"state": "dead", "error": error})


@operation
def requeue(conn: Connection, key: str, now: datetime) -> JobView:
    """Lets workers claim a dead job again, with all its attempts.

    Args:
        conn: The connection, within a transaction.
        key: The job's whole key.
        now: The time.

    Returns:
        The job, waiting.

    Raises:
        NotFound: If there is no such job.
        BadInput: If it is not dead.
    """
    dead = update(jobs).where(jobs.c.key == key, jobs.c.state == "dead")
    changed = conn.execute(dead.values(state="waiting", due_at=now, first_due_at=now, attempts=0)).rowcount
    job = _load_job(conn, key, now)
    if changed != 1:
        raise BadInput(f"job {key} is {job.state}; only dead jobs are requeued")
    return job


@operation
def list_jobs(
    conn: Connection, now: datetime, *, state: JobState | None, limit: int, before: str | None
) -> list[JobView]:
    """Jobs: those that wait or run in the order they are due, others with the latest first.

    Args:
        conn: The connection to read with.
        now: The time, by which a job is running or waits.
        state: Only jobs in this state; None for all.
        limit: The most jobs to return.
        before: The key of the last job of the page before; None for the first page.

    Raises:
        NotFound: If there is no job `before`.
    """
    by_time = (jobs.c.due_at, jobs.c.key)
    ascending = state in ("waiting", "running")
    query = select(jobs).order_by(*(by_time if ascending else (column.desc() for column in by_time))).limit(limit)
    if state is not None:
        query = query.where(_is_in(state, now))
    if before is not None:
        last = _load_job(conn, before, now)
        position, last_position = tuple_(*by_time), (last.due_at, last.key)
        query = query.where(position > last_position if ascending else position < last_position)
    return [_job_view(row, now) for row in conn.execute(query)]


def _is_leased(now: datetime) -> ColumnElement[bool]:
    return and_(jobs.c.lease_until.is_not(None), jobs.c.lease_until > now)


def _is_in(state: JobState, now: datetime) -> ColumnElement[bool]:
    match state:
        case "running":
            return and_(jobs.c.state == "waiting", _is_leased(now))
        case "waiting":
            return and_(jobs.c.state == "waiting", not_(_is_leased(now)))
        case _:
            return jobs.c.state == state


def _load_job(conn: Connection, key: str, now: datetime) -> JobView:
    row = conn.execute(select(jobs).where(jobs.c.key == key)).one_or_none()
    if row is None:
        raise NotFound(f"no job {key}; `handrail jobs list` shows them")
    return _job_view(row, now)


def _job_view(row: Row[Any], now: datetime) -> JobView:
    leased = row.lease_until is not None and row.lease_until > now
    return from_row(JobView, row, state="running" if row.state == "waiting" and leased else row.state)


def _held_by(job: Job) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.key == job.key, jobs.c.claims == job.claims, jobs.c.worker == job.worker


@operation
def _release(conn: Connection, job: Job, values: Mapping[str, Any]) -> bool:
    released = update(jobs).where(*_held_by(job)).values({"worker": None, "lease_until": None, **values})
    return conn.execute(released).rowcount == 1
