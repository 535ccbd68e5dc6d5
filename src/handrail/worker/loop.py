"""Claims due jobs and runs several at once, until nothing is due or the worker is asked to stop.

A worker that stops claims nothing more, and lets its jobs end for `grace_seconds`. What still runs then is cancelled:
its run can be resumed, its job is given back, and another worker goes on with both at once.
"""

import asyncio
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Self

from handrail.ceilings.ledger import charge_expired
from handrail.kernel.db.jobs import claim
from handrail.kernel.errors import StoreError
from handrail.kernel.ids import new_id
from handrail.kernel.interruptions import INTERRUPTIONS, outwait
from handrail.runs.runtime import Runtime

from .attempt import LEASE, JobResult, attempt, give_back_now
from .handlers import HANDLERS, FindAgent
from .stop_signal import StopSignal

POLL_SECONDS = 0.5
"""Seconds between two polls for due jobs."""
_STORE_PAUSE_SECONDS = 5.0
"""How long the worker waits after an error of the store."""
_CANCEL_SECONDS = 5.0
"""How long a cancelled job has to end. One that swallows the cancellation is left behind."""

_logger = logging.getLogger(__package__)


def _ignore(_result: JobResult) -> None:
    pass


async def run_due_jobs(
    runtime: Runtime,
    find_agent: FindAgent,
    on_job: Callable[[JobResult], None] = _ignore,
    stop: StopSignal | None = None,
) -> int:
    """Charges expired holds, then runs the due jobs, several at once, until none is left.

    Args:
        runtime: The runtime whose store holds the jobs.
        find_agent: Finds a run's agent by name.
        on_job: Called after each job with its result.
        stop: Stops it early.

    Returns:
        How many jobs were run or given up.

    Raises:
        StoreError: The store failed. An error that a job raises is stored with the job instead.
    """
    stop = stop or StopSignal()
    stop.listen()
    async with _RunningJobs(runtime, find_agent, on_job) as running:
        await _charge_expired_holds(runtime)
        while not stop.draining.is_set():
            await running.start_due()
            if not running.tasks:
                break
            await _first_of(stop.draining.wait(), tasks=running.tasks)
        await running.drain(stop)
    return running.ended


async def run_worker(
    runtime: Runtime,
    find_agent: FindAgent,
    on_job: Callable[[JobResult], None] = _ignore,
    stop: StopSignal | None = None,
) -> None:
    """Runs due jobs until it is asked to stop, polling for them every POLL_SECONDS; waits while the store fails.

    Args:
        runtime: The runtime whose store holds the jobs.
        find_agent: Finds a run's agent by name.
        on_job: Called after each job with its result.
        stop: Stops it.
    """
    stop = stop or StopSignal()
    stop.listen()
    async with _RunningJobs(runtime, find_agent, on_job) as running:
        while not stop.draining.is_set():
            pause = POLL_SECONDS
            try:
                await _charge_expired_holds(runtime)
                await running.start_due()
            except StoreError as error:
                _logger.error("the worker pauses because the store failed", extra={"error": str(error)})
                pause = _STORE_PAUSE_SECONDS
            await _first_of(stop.draining.wait(), runtime.clock.sleep(pause), tasks=running.tasks)
        await running.drain(stop)


class _RunningJobs:
    """The jobs that a worker runs at once. Leaving the block cancels those that still run."""

    def __init__(self, runtime: Runtime, find_agent: FindAgent, on_job: Callable[[JobResult], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.ended = 0
        """How many have ended."""
        self._runtime = runtime
        self._find_agent = find_agent
        self._on_job = on_job
        self._worker = f"{platform.node()}:{os.getpid()}:{new_id('worker', runtime.clock.now())}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            _, left = await asyncio.wait(self.tasks, timeout=_CANCEL_SECONDS)
            if left:
                _logger.error("jobs left behind: they do not end when they are cancelled", extra={"count": len(left)})

    async def start_due(self) -> None:
        """Claims and starts due jobs until as many run as the settings allow. Raises StoreError."""
        while len(self.tasks) < self._runtime.settings.worker.concurrency:
            task = await self._claim()
            if task is None:
                return
            self.tasks.add(task)
            task.add_done_callback(self._end)

    async def drain(self, stop: StopSignal) -> None:
        """Waits for what is running, for the grace period or until `stop` is in a hurry."""
        grace = self._runtime.settings.worker.grace_seconds
        if not self.tasks or not grace:
            return
        _logger.info("the worker stops once its jobs have ended", extra={"count": len(self.tasks)})
        await _first_of(stop.hurried.wait(), asyncio.sleep(grace), asyncio.wait(set(self.tasks)))

    async def _claim(self) -> "asyncio.Task[None] | None":
        """Claims a job and starts it, also if the caller is cancelled meanwhile: then the job is given back."""
        now = self._runtime.clock.now()
        write = asyncio.ensure_future(self._runtime.database.write(claim(HANDLERS, self._worker, now, LEASE)))
        try:
            [job] = await asyncio.shield(write)
        except INTERRUPTIONS:
            await outwait(write)
            if write.exception() is None and write.result()[0] is not None:
                await give_back_now(self._runtime, write.result()[0])
            raise
        if job is None:
            return None
        return asyncio.create_task(self._run(attempt(self._runtime, self._find_agent, job)))

    async def _run(self, attempted: Awaitable[JobResult]) -> None:
        self._on_job(await attempted)
        self.ended += 1

    def _end(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a job ended with a programming error of the worker", exc_info=error)


async def _first_of(*waits: Coroutine[Any, Any, object], tasks: Collection["asyncio.Task[None]"] = ()) -> None:
    """Waits until one of `waits` or `tasks` has ended, then cancels the other `waits`."""
    waiting = {asyncio.create_task(wait) for wait in waits}
    try:
        await asyncio.wait({*waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waiting:
            wait.cancel()


async def _charge_expired_holds(runtime: Runtime) -> None:
    [charged_holds] = await runtime.database.write(charge_expired(runtime.clock.now()))
    for hold in charged_holds:
        _logger.warning(
            "an expired hold was charged", extra={"run_id": hold.run_id, "tenant": hold.tenant, "hold_id": hold.hold_id}
        )
