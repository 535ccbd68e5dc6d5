"""`handrail jobs`: background work, why it failed, and another try for it."""

from typing import Annotated

import typer
from rich.console import Console

from handrail.kernel.db.jobs import JobState, JobView, list_jobs, requeue

from .options import AsJson, Limit
from .output import console, count, excerpt, format_time, print_json
from .runtime import open_runtime

app = typer.Typer(help="Background jobs: those that wait, run or failed, and why.", no_args_is_help=True)

_COLOURS: dict[JobState, str] = {"dead": "red", "running": "cyan", "waiting": "yellow", "done": "green"}


@app.command("list")
def list_(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 20,
    before: Annotated[str | None, typer.Option(help="List the page after the one that ends with this job.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs with their errors, the newest first. The worker runs them, for every tenant.

    A job that fails is tried again, with growing delays; once its attempts are used up it is dead.

    Example: `handrail jobs list --state dead`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        jobs = runtime.database.read_now(list_jobs(now, state=state, limit=limit, before=before))
    if as_json:
        print_json(jobs)
        return
    screen = console()
    if not jobs:
        screen.print("No jobs. Deciding an approval adds one, which resumes its run; `handrail worker` runs them.")
        return
    for job in jobs:
        _print_job(screen, job)
    if any(job.state == "dead" for job in jobs):
        screen.print("[dim]`handrail jobs requeue KEY` lets a dead job be tried again.[/]")
    if len(jobs) == limit:
        screen.print(f"[dim]Next page: --before {excerpt(jobs[-1].key, 400)}[/]", soft_wrap=True)


@app.command("requeue")
def requeue_job(
    key: Annotated[str, typer.Argument(help="The dead job's key, from `handrail jobs list`.")], as_json: AsJson = False
) -> None:
    """Let workers try a dead job again, once the cause of its error is removed.

    The run of a dead job was escalated, so look at it first: it is resumed only if it still waits for its approvals.

    Example: `handrail jobs requeue resume:run_01k8w5c3f9x2v7m4n6p8q0r1s3:1`
    """
    with open_runtime() as runtime:
        [job] = runtime.database.write_now(requeue(key, runtime.clock.now()))
    if as_json:
        print_json(job)
        return
    console().print(f"Requeued {excerpt(job.key, 400)}. `handrail worker` runs it next.", soft_wrap=True)


def _print_job(screen: Console, job: JobView) -> None:
    """Two lines rather than a row of a table: keys are copied, and errors are long."""
    colour = _COLOURS[job.state]
    screen.print(f"[{colour}]{job.state}[/]  [bold]{excerpt(job.key, 400)}[/]", soft_wrap=True)
    worker = f", by {excerpt(job.worker, 100)}" if job.state == "running" and job.worker else ""
    due = f"due {format_time(job.due_at)}, {count(job.attempts, 'attempt')}{worker}"
    screen.print(f"  [dim]{due}[/]", soft_wrap=True)
    if job.error:
        screen.print(f"  {excerpt(job.error, 600)}")
