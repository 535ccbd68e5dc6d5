"""Decides what becomes of a job after an attempt."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from handrail.kernel.db.jobs import Job
from handrail.review.approvals.errors import StillExecuting
from handrail.runs.store.runs import TakenOver

from .handlers import AgentUnavailable, RunsElsewhere, WaitsForCaller

MAX_ATTEMPTS = 10
"""Attempts at one job before it is given up; the delays double each time and add up to about 43 minutes."""
MAX_UNAVAILABLE = 62
"""How often a job is claimed by workers that do not know its agent before it is given up, which takes an hour."""
_FIRST_DELAY = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=1)
"""The longest delay of a job that waits for another process, rather than for its own fault to pass."""


@dataclass(frozen=True)
class Finish:
    """The job is done."""


@dataclass(frozen=True)
class Retry:
    """The job is claimed again from `due` on, by any worker."""

    due: datetime
    error: str
    counts: bool
    """Whether this was one of its attempts."""


@dataclass(frozen=True)
class GiveUp:
    """The job is dead."""

    error: str


NextStep: TypeAlias = Finish | Retry | GiveUp


def next_step(job: Job, error: Exception | None, now: datetime) -> NextStep:
    """What becomes of a job.

    An attempt does not count if it is another process that can do the job: one that knows the agent, or has the run.

    Args:
        job: The job as it was claimed.
        error: What the attempt raised; None if the job is done.
        now: The time.
    """
    if error is None:
        return Finish()
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, AgentUnavailable | RunsElsewhere | WaitsForCaller | StillExecuting | TakenOver):
        if isinstance(error, AgentUnavailable) and job.claims >= MAX_UNAVAILABLE:
            return GiveUp(text)
        return Retry(now + min(_growing_delay(job.claims), _LONGEST_WAIT), text, counts=False)
    if job.attempts >= MAX_ATTEMPTS:
        return GiveUp(text)
    return Retry(now + _growing_delay(job.attempts), text, counts=True)


def _growing_delay(attempts: int) -> timedelta:
    doublings: int = 2 ** min(attempts - 1, MAX_ATTEMPTS)
    return _FIRST_DELAY * doublings
