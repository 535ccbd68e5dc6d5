"""One attempt at a job: a heartbeat renews its lease, a deadline ends it, and what came of it is stored and logged."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from handrail.kernel.db.jobs import Job, finish, give_back, give_up, renew_job, retry_later
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import HandrailError, StoreError
from handrail.kernel.interruptions import INTERRUPTIONS, run_to_end
from handrail.runs.runtime import Runtime, use_runtime
from handrail.runs.store.queries import load_run

from .handlers import HANDLERS, RESUME, AgentUnavailable, FindAgent, approval_fields, escalate_resume
from .next_step import MAX_ATTEMPTS, Finish, GiveUp, NextStep, Retry, next_step

LEASE = timedelta(minutes=1)
"""How long other workers leave a claimed job alone after its last heartbeat."""
_STOPPED = "its worker was stopped"

_logger = logging.getLogger(__package__)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of one attempt at a job."""

    job: Job
    error: str | None
    """None if the job is done; else the exception that it raised, with its message, or why it was given up."""


class WorkerLost(Exception):
    """The worker died or outlived its lease in the last attempt at a job, which may be what killed it."""


class DeadlinePassed(Exception):
    """A job took longer than a worker's `job_seconds`."""


async def attempt(runtime: Runtime, find_agent: FindAgent, job: Job) -> JobResult:
    """Makes one attempt at a job, then stores and logs what came of it.

    If it is cancelled, the job is given back at once, and the attempt does not count.

    Args:
        runtime: The runtime whose store has the job.
        find_agent: Finds a run's agent by name.
        job: The job, just claimed.
    """
    if job.lost_worker is not None:
        extra = {**await _log_fields(runtime, job), "lost_worker": job.lost_worker}
        _logger.warning("job claimed again: its worker died or outlived its lease", extra=extra)
    try:
        error = await _make(runtime, find_agent, job)
        step = next_step(job, error, runtime.clock.now())
        if isinstance(step, GiveUp) and job.kind == RESUME:
            step = await _escalate(runtime, job, step)
    except INTERRUPTIONS:
        await give_back_now(runtime, job)
        raise
    # To the end: the work is done, and a job that is stored as such is not run again.
    await run_to_end(_store(runtime, job, step, error))
    return JobResult(job=job, error=None if isinstance(step, Finish) else step.error)


async def give_back_now(runtime: Runtime, job: Job) -> None:
    """Lets any worker claim a job at once, because this one stops.

    Args:
        runtime: The runtime whose store has the job.
        job: The job, as this worker claimed it.
    """
    # If the store fails, the lease ends by itself.
    with suppress(StoreError):
        await run_to_end(runtime.database.write(give_back(job, runtime.clock.now(), _STOPPED)))
    _logger.warning("job given back: the worker stops", extra={"job": job.key, "kind": job.kind})


async def _make(runtime: Runtime, find_agent: FindAgent, job: Job) -> Exception | None:
    """Runs the job's handler; returns what it raised."""
    # Attempts that fail end at MAX_ATTEMPTS, so one more follows a worker's death.
    if job.attempts > MAX_ATTEMPTS:
        return WorkerLost(f"the worker died or outlived its lease in the last of {MAX_ATTEMPTS} attempts")
    seconds = runtime.settings.worker.job_seconds
    try:
        async with _heartbeat(runtime, job), _timeout(runtime, seconds) as timeout:
            with use_runtime(runtime):
                await HANDLERS[job.kind](runtime, find_agent, job.payload)
    except Exception as error:  # noqa: BLE001 - whatever a job raises is stored with it
        return DeadlinePassed(f"it took longer than {seconds:g} seconds") if timeout.expired() else error
    return None


@asynccontextmanager
async def _heartbeat(runtime: Runtime, job: Job) -> AsyncIterator[None]:
    renewal = asyncio.create_task(_renew(runtime, job))
    try:
        yield
    finally:
        renewal.cancel()


@asynccontextmanager
async def _timeout(runtime: Runtime, seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """`asyncio.timeout` by the runtime's clock."""
    async with asyncio.timeout(None) as timeout:
        expiry = asyncio.create_task(_expire(runtime, seconds, timeout))
        try:
            yield timeout
        finally:
            expiry.cancel()


async def _expire(runtime: Runtime, seconds: float, expiring: asyncio.Timeout) -> None:
    await runtime.clock.sleep(seconds)
    expiring.reschedule(asyncio.get_running_loop().time())


async def _renew(runtime: Runtime, job: Job) -> None:
    """Renews the lease until it is lost. A run that is resumed has a lease of its own, which guards it."""
    held = True
    while held:
        await runtime.clock.sleep(LEASE.total_seconds() / 3)
        with suppress(StoreError):
            [held] = await runtime.database.write(renew_job(job, runtime.clock.now() + LEASE))


async def _escalate(runtime: Runtime, job: Job, step: GiveUp) -> NextStep:
    """Hands the run to a person before its job dies; the job goes on if that fails."""
    try:
        await escalate_resume(runtime, job.payload, step.error)
    except StoreError as error:
        return Retry(runtime.clock.now() + LEASE, f"{step.error}; and {error}", counts=False)
    except Exception:
        # What is stored of the run cannot be read. The dead job is what shows it then.
        _logger.exception("run could not be escalated", extra={"job": job.key})
    return step


async def _store(runtime: Runtime, job: Job, step: NextStep, error: Exception | None) -> None:
    try:
        [held] = await runtime.database.write(_job_update(job, step))
    except StoreError as failure:
        # Its lease ends by itself, and another attempt finds out that the work is done.
        _logger.error("job result could not be stored", extra={"job": job.key, "error_code": failure.code})
        return
    if error is not None or not held:
        await _log_failure(runtime, job, step, error, held)


def _job_update(job: Job, step: NextStep) -> Operation[bool]:
    match step:
        case Finish():
            return finish(job)
        case Retry(due=due, error=error, counts=counts):
            return retry_later(job, due, error) if counts else give_back(job, due, error)
        case GiveUp(error=error):
            return give_up(job, error)


async def _log_failure(runtime: Runtime, job: Job, step: NextStep, error: Exception | None, held: bool) -> None:
    # The error's type only: its message may quote what users and models wrote. The job has it in full.
    extra = await _log_fields(runtime, job)
    if error is not None:
        shown = error.__cause__ if isinstance(error, AgentUnavailable) and error.__cause__ else error
        extra["error_type"] = type(shown).__name__
    if not held:
        _logger.warning("job result dropped: another worker has claimed the job", extra=extra)
    elif isinstance(step, GiveUp):
        _logger.error("job died after its last attempt", extra=extra)
    elif isinstance(step, Retry) and step.counts:
        _logger.warning("job failed and will be retried", extra=extra)
    elif isinstance(error, AgentUnavailable):
        _logger.warning("job failed here, since this worker cannot load its agent", extra=extra)
    else:
        _logger.info("job waits for another process", extra=extra)


async def _log_fields(runtime: Runtime, job: Job) -> dict[str, Any]:
    """What identifies a job in the log, with the run and the tenant that it is for, where the store has them."""
    fields: dict[str, Any] = {"job": job.key, "kind": job.kind, "attempts": job.attempts}
    if "run_id" in job.payload:
        fields["run_id"] = job.payload["run_id"]
    # A store that fails now must not hide what happened to the job.
    with suppress(HandrailError):
        if "run_id" in job.payload:
            run = await runtime.database.read(load_run(job.payload["run_id"], runtime.clock.now()))
            fields["tenant"] = run.tenant
        elif "approval_id" in job.payload:
            fields.update(await approval_fields(runtime, job.payload["approval_id"]))
    return fields
