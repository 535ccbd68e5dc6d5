"""The worker: runs the jobs that decisions leave behind, in any process, again after a crash.

Only it, or an explicit `await agent.resume(run_id)`, executes an approved action. Jobs may run more than once: what
they call tells by itself that its work is done.
"""

import os
import platform
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from handrail.ceilings.ledger import charge_expired
from handrail.kernel.db.jobs import Job, claim, finish, give_up, retry_later
from handrail.kernel.ids import new_id
from handrail.review.approvals.store import expire
from handrail.runs.agent import GovernedAgent
from handrail.runs.errors import NotResumable
from handrail.runs.runtime import Runtime, use_runtime
from handrail.runs.store.runs import load_run

FindAgent: TypeAlias = Callable[[str], GovernedAgent[Any, Any]]

LEASE = timedelta(minutes=1)
"""How long other workers leave a claimed job alone; a run that is carried on for longer keeps a lease of its own."""
POLL_SECONDS = 0.5
ATTEMPTS = 10
"""Tries of one job before it is left to people. They grow apart, to about three quarters of an hour in all."""
_FIRST_DELAY = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Done:
    """One job that was tried: `error` is None where it is done."""

    job: Job
    error: str | None


async def run_due(runtime: Runtime, find: FindAgent, on_job: Callable[[Done], None] = lambda _done: None) -> int:
    """Runs what is due now, one after another, until nothing is; says how many jobs it tried.

    `find` gives an agent by its name. Raises StoreError where the store fails; a job's own error is kept with the job.
    """
    name = f"{platform.node()}:{os.getpid()}:{new_id('worker', runtime.clock.now())}"
    tried = 0
    await runtime.database.write(charge_expired(runtime.clock.now()))
    while True:
        [job] = await runtime.database.write(claim(_HANDLERS, name, runtime.clock.now(), LEASE))
        if job is None:
            return tried
        error = await _tried(runtime, find, job)
        await runtime.database.write(_end(runtime, job, error))
        on_job(Done(job=job, error=error))
        tried += 1


async def work(runtime: Runtime, find: FindAgent, on_job: Callable[[Done], None]) -> None:
    """`run_due` for ever, looking for work twice a second."""
    while True:
        await run_due(runtime, find, on_job)
        await runtime.clock.sleep(POLL_SECONDS)


async def _tried(runtime: Runtime, find: FindAgent, job: Job) -> str | None:
    try:
        with use_runtime(runtime):
            await _HANDLERS[job.kind](runtime, find, job.payload)
    except Exception as error:  # noqa: BLE001 - whatever a job raises is kept with it, and the next one runs
        return "".join(traceback.format_exception_only(error)).strip()
    return None


def _end(runtime: Runtime, job: Job, error: str | None) -> Callable[[Any], bool]:
    if error is None:
        return finish(job)
    if job.attempts >= ATTEMPTS:
        return give_up(job, error)
    return retry_later(job, runtime.clock.now() + _FIRST_DELAY * 2 ** (job.attempts - 1), error)


async def _resume(runtime: Runtime, find: FindAgent, payload: Mapping[str, Any]) -> None:
    run_id, now = payload["run_id"], runtime.clock.now()
    run = await runtime.database.read(lambda conn: load_run(conn, run_id, now))
    try:
        await find(run.agent).resume(run_id)
    except NotResumable:
        # Somebody else carried it on, or does so now: then it is tried again, in case that process dies.
        run = await runtime.database.read(lambda conn: load_run(conn, run_id, now))
        if run.status == "running":
            raise


async def _expire(runtime: Runtime, _find: FindAgent, payload: Mapping[str, Any]) -> None:
    await runtime.database.write(expire(payload["approval_id"], runtime.clock.now()))


_HANDLERS: Mapping[str, Callable[[Runtime, FindAgent, Mapping[str, Any]], Awaitable[None]]] = {
    "resume_run": _resume,
    "expire_approval": _expire,
}
