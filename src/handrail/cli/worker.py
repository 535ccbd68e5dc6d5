"""`handrail worker`: carries on what people decided, and what else is due."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console

from handrail.registry import find_agent
from handrail.runs.agent import GovernedAgent
from handrail.worker import Done, run_due, work

from .output import AsJson, console, excerpt, print_json
from .runtime import opened


def worker(
    once: Annotated[bool, typer.Option("--once", help="Do what is due now, then stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Resume runs whose approvals are decided, and let overdue ones expire; until it is stopped (Ctrl-C).

    Any number of workers may run on one store. Example: `handrail worker --once`
    """
    screen, done = console(stderr=as_json), list[Done]()
    with opened() as runtime:

        def find(name: str) -> GovernedAgent[Any, Any]:
            return find_agent(name, runtime.settings)

        def tell(each: Done) -> None:
            done.append(each)
            _show(screen, each)

        if once:
            asyncio.run(run_due(runtime, find, tell))
        else:
            screen.print(f"Working on {excerpt(runtime.database.name, 200)}. Ctrl-C stops it, and loses nothing.")
            try:
                asyncio.run(work(runtime, find, tell))
            except KeyboardInterrupt:
                screen.print("Stopped.")
    if as_json:
        print_json([{"job": each.job.key, "kind": each.job.kind, "error": each.error} for each in done])
    elif not done:
        screen.print("Nothing was due.")
    if any(each.error for each in done):
        raise typer.Exit(1)


def _show(screen: Console, each: Done) -> None:
    mark = "[green]done[/]" if each.error is None else f"[red]{excerpt(each.error, 400)}[/]"
    screen.print(f"{each.job.key}  {mark}", soft_wrap=True)
