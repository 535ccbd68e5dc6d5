"""`handrail worker`: resumes runs whose approvals are decided, and runs the other jobs that are due."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeAlias

import typer

from handrail.registry import find_agent
from handrail.runs.runtime import Runtime
from handrail.worker import FindAgent, JobResult, StopSignal, run_due_jobs, run_worker

from .logging_setup import LogFormat, configure_logging
from .options import AsJson
from .output import console, excerpt, print_json
from .runtime import open_runtime
from .signals import ExitDeadline, on_signals

_MAX_FAILED = 1_000

_logger = logging.getLogger(__name__)


def worker(
    once: Annotated[bool, typer.Option("--once", help="Run the jobs that are due now, print them, and stop.")] = False,
    log_format: LogFormat = "text",
    as_json: AsJson = False,
) -> None:
    """Resume runs whose approvals are decided, and expire overdue approvals, until stopped with Ctrl-C.

    Any number of workers may share one store. Stopped with Ctrl-C or SIGTERM, it lets its jobs end for the grace period
    of the settings; a second signal ends it at once. Runs that it leaves can be resumed. Exit code 1 if a job failed.

    Example: `handrail worker --once`
    """
    configure_logging(log_format)
    with open_runtime() as runtime:
        find = partial(find_agent, settings=runtime.settings)
        results = asyncio.run(_until_stopped(runtime, find, _run_due if once else _run_until_stopped))
    if as_json:
        print_json([{"job": result.job.key, "kind": result.job.kind, "error": result.error} for result in results])
    elif once:
        _print(results)
    if any(result.error for result in results):
        raise typer.Exit(1)


_Work: TypeAlias = Callable[[Runtime, FindAgent, StopSignal], Awaitable[list[JobResult]]]


async def _until_stopped(runtime: Runtime, find: FindAgent, work: _Work) -> list[JobResult]:
    """Works until it is done, or stopped by a signal."""
    stop, deadline = StopSignal(), ExitDeadline(runtime.settings.worker.grace_seconds)
    with on_signals(deadline.at_signal, stop.request):
        results = await work(runtime, find, stop)
    deadline.at_end()
    if stop.draining.is_set():
        _logger.info("stopped")
    return results


async def _run_due(runtime: Runtime, find: FindAgent, stop: StopSignal) -> list[JobResult]:
    results: list[JobResult] = []
    await run_due_jobs(runtime, find, results.append, stop)
    return results


async def _run_until_stopped(runtime: Runtime, find: FindAgent, stop: StopSignal) -> list[JobResult]:
    """Logs each job as it ends. Returns the last jobs that failed."""
    failed: deque[JobResult] = deque(maxlen=_MAX_FAILED)

    def on_job(result: JobResult) -> None:
        if result.error is None:
            _logger.info("job done", extra={"job": result.job.key, "kind": result.job.kind})
        else:
            failed.append(result)

    _logger.info("working on %s; stop it with Ctrl-C, nothing is lost", runtime.database.name)
    await run_worker(runtime, find, on_job, stop)
    return list(failed)


def _print(results: list[JobResult]) -> None:
    screen = console()
    for result in results:
        mark = "[green]done[/]" if result.error is None else f"[red]{excerpt(result.error, 400)}[/]"
        screen.print(f"{result.job.key}  {mark}", soft_wrap=True)
    if not results:
        screen.print("Nothing was due.")
