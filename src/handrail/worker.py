"""The worker: runs background jobs, in any process, and again after a crash.

Only the worker, or an explicit `await agent.resume(run_id)`, executes an approved action. A job may run more than once
(its worker died, or lost its lease), so each handler checks whether its work is already done.
"""

import logging
import os
import platform
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from handrail.ceilings.ledger import charge_expired
from handrail.kernel.db.jobs import Job, claim, finish, give_up, retry_later
from handrail.kernel.db.operation import Operation
from handrail.kernel.errors import HandrailError
from handrail.kernel.ids import new_id
from handrail.review.approvals.store import expire, load_approval
from handrail.runs.agent import GovernedAgent
from handrail.runs.errors import NotResumable
from handrail.runs.runtime import Runtime, use_runtime
from handrail.runs.store.queries import load_run

FindAgent: TypeAlias = Callable[[str], GovernedAgent[Any, Any]]
"""Returns the agent with a name; raises NotFound for an unknown name."""

LEASE = timedelta(minutes=1)
"""How long other workers leave a claimed job alone. A resumed run renews a lease of its own, however long it takes."""
POLL_SECONDS = 0.5
"""Seconds between two polls for due jobs."""
MAX_ATTEMPTS = 10
"""Attempts at one job before it is given up; the delays double each time and add up to about 43 minutes."""
_FIRST_DELAY = timedelta(seconds=5)
_LAST_WORKER_LOST = f"the worker died or outlived its lease in the last of {MAX_ATTEMPTS} attempts"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of one attempt at a job."""

    job: Job
    error: str | None
    """None if the job is done; else the exception that it raised, with its message, or why it was given up."""


async def run_due_jobs(
    runtime: Runtime, find_agent: FindAgent, on_job: Callable[[JobResult], None] = lambda _result: None
) -> int:
    """Charges expired holds, then runs the due jobs one after another until none is left.

    Args:
        runtime: The runtime whose store holds the jobs.
        find_agent: Finds a run's agent by name.
        on_job: Called after each job with its result.

    Returns:
        How many jobs were run or given up.

    Raises:
        StoreError: The store failed. An error that a job raises is stored with the job instead.
    """
    worker_name = f"{platform.node()}:{os.getpid()}:{new_id('worker', runtime.clock.now())}"
    count = 0
    [charged_holds] = await runtime.database.write(charge_expired(runtime.clock.now()))
    for hold in charged_holds:
        _logger.warning(
            "an expired hold was charged", extra={"run_id": hold.run_id, "tenant": hold.tenant, "hold_id": hold.hold_id}
        )
    while True:
        [job] = await runtime.database.write(claim(_HANDLERS, worker_name, runtime.clock.now(), LEASE))
        if job is None:
            return count
        on_job(JobResult(job=job, error=await _run_job(runtime, find_agent, job)))
        count += 1


async def run_worker(runtime: Runtime, find_agent: FindAgent, on_job: Callable[[JobResult], None]) -> None:
    """Runs due jobs forever, polling for them every POLL_SECONDS.

    Args:
        runtime: The runtime whose store holds the jobs.
        find_agent: Finds a run's agent by name.
        on_job: Called after each job with its result.

    Raises:
        StoreError: The store failed.
    """
    while True:
        await run_due_jobs(runtime, find_agent, on_job)
        await runtime.clock.sleep(POLL_SECONDS)


async def _run_job(runtime: Runtime, find_agent: FindAgent, job: Job) -> str | None:
    """Makes one attempt at a job, then stores and logs what came of it; returns the error."""
    if job.lost_worker is not None:
        extra = {**await _log_fields(runtime, job), "lost_worker": job.lost_worker}
        _logger.warning("job claimed again: its worker died or outlived its lease", extra=extra)
    error: str | None = _LAST_WORKER_LOST
    error_type = "WorkerLost"
    # Attempts that fail end at MAX_ATTEMPTS, so one more follows a worker's death. The job may be what kills them.
    if job.attempts <= MAX_ATTEMPTS:
        raised = await _run_handler(runtime, find_agent, job)
        error, error_type = (None, "") if raised is None else (_one_line(raised), type(raised).__name__)
    [held] = await runtime.database.write(_job_update(runtime, job, error))
    if error is not None or not held:
        await _log_failure(runtime, job, error_type, held)
    return error


async def _run_handler(runtime: Runtime, find_agent: FindAgent, job: Job) -> Exception | None:
    try:
        with use_runtime(runtime):
            await _HANDLERS[job.kind](runtime, find_agent, job.payload)
    except Exception as error:  # noqa: BLE001 - whatever a job raises is stored with it, and the next one runs
        return error
    return None


def _job_update(runtime: Runtime, job: Job, error: str | None) -> Operation[bool]:
    if error is None:
        return finish(job)
    if job.attempts >= MAX_ATTEMPTS:
        return give_up(job, error)
    return retry_later(job, runtime.clock.now() + _FIRST_DELAY * 2 ** (job.attempts - 1), error)


async def _log_failure(runtime: Runtime, job: Job, error_type: str, held: bool) -> None:
    # The error's type only: its message may quote what users and models wrote. The job has it in full.
    extra = await _log_fields(runtime, job)
    if error_type:
        extra["error_type"] = error_type
    if not held:
        _logger.warning("job result dropped: another worker has claimed the job", extra=extra)
    elif job.attempts >= MAX_ATTEMPTS:
        _logger.error("job died after its last attempt", extra=extra)
    else:
        _logger.warning("job failed and will be retried", extra=extra)


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
            fields.update(await _approval_fields(runtime, job.payload["approval_id"]))
    return fields


async def _approval_fields(runtime: Runtime, approval_id: str) -> dict[str, str]:
    approval = await runtime.database.read(load_approval(approval_id))
    return {"approval_id": approval_id, "run_id": approval.run_id, "tenant": approval.tenant}


def _one_line(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


async def _resume(runtime: Runtime, find_agent: FindAgent, payload: Mapping[str, Any]) -> None:
    run_id, now = payload["run_id"], runtime.clock.now()
    run = await runtime.database.read(load_run(run_id, now))
    try:
        await find_agent(run.agent).resume(run_id)
    except NotResumable:
        # Another process resumed the run. While it still runs there, the job is kept, in case that process dies.
        run = await runtime.database.read(load_run(run_id, now))
        if run.status == "running":
            raise


async def _expire(runtime: Runtime, _find_agent: FindAgent, payload: Mapping[str, Any]) -> None:
    [expired] = await runtime.database.write(expire(payload["approval_id"], runtime.clock.now()))
    if expired:
        _logger.info("approval expired", extra=await _approval_fields(runtime, payload["approval_id"]))


_HANDLERS: Mapping[str, Callable[[Runtime, FindAgent, Mapping[str, Any]], Awaitable[None]]] = {
    "resume_run": _resume,
    "expire_approval": _expire,
}
