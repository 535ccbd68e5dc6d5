"""What becomes of a job after an attempt, as a function of the job, the error and the time."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import ResumeFailed, StillExecuting, TakenOver
from handrail.kernel.db.jobs import Job
from handrail.testing import VirtualClock
from handrail.worker.handlers import AgentUnavailable, RunsElsewhere
from handrail.worker.next_step import MAX_ATTEMPTS, MAX_UNAVAILABLE, Finish, GiveUp, Retry, next_step

NOW = VirtualClock().now()


def job(*, attempts: int = 1, claims: int | None = None) -> Job:
    return Job("k", "resume_run", {}, NOW, attempts if claims is None else claims, attempts, "w")


def test_a_job_that_went_well() -> None:
    """A job that raised nothing is done."""
    assert next_step(job(), None, NOW) == Finish()


@given(st.integers(1, MAX_ATTEMPTS - 1))
def test_delays_double(attempts: int) -> None:
    """Each failed attempt waits twice as long as the one before, beginning with five seconds."""
    step = next_step(job(attempts=attempts), ResumeFailed("why"), NOW)
    assert step == Retry(NOW + timedelta(seconds=5) * 2 ** (attempts - 1), "ResumeFailed: why", counts=True)


def test_the_last_attempt() -> None:
    """A job that failed in its last attempt is given up."""
    assert next_step(job(attempts=MAX_ATTEMPTS), ResumeFailed("why"), NOW) == GiveUp("ResumeFailed: why")


@given(
    st.sampled_from([AgentUnavailable("x"), RunsElsewhere("x"), StillExecuting("x"), TakenOver("x")]),
    st.integers(1, MAX_UNAVAILABLE - 1),
)
def test_waiting_for_another_process(error: Exception, claims: int) -> None:
    """A job that another process can do waits at most a minute between claims, without using an attempt."""
    step = next_step(job(attempts=MAX_ATTEMPTS, claims=claims), error, NOW)
    assert isinstance(step, Retry)
    assert not step.counts
    assert timedelta(seconds=5) <= step.due - NOW <= timedelta(minutes=1)


@pytest.mark.parametrize(("error", "expected"), [(AgentUnavailable("x"), GiveUp), (RunsElsewhere("x"), Retry)])
def test_waiting_has_an_end_if_nobody_can_do_it(error: Exception, expected: type) -> None:
    """An agent that no worker has known in MAX_UNAVAILABLE claims is given up; a run that is worked on is not."""
    assert isinstance(next_step(job(claims=MAX_UNAVAILABLE), error, NOW), expected)
