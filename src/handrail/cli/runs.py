"""`handrail runs`: how runs ended, and the story of one."""

from collections.abc import Sequence
from typing import Annotated

import typer

from handrail.evals import TENANT as EVALS
from handrail.kernel import NotFound, show_usd
from handrail.runs import OutcomeView, Runtime, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.traces import Span, load_trace, span_tree

from .screen import AsJson, console, excerpt, print_json, show_duration, show_path, show_time, span_trees, table
from .session import opened

app = typer.Typer(help="How runs ended, and the story of one.", no_args_is_help=True)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help=f"Only this tenant's; '{EVALS}' are the trials' runs.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    before: Annotated[str | None, typer.Option(help="The page after the one that ends with this run.")] = None,
    as_json: AsJson = False,
) -> None:
    """The newest runs. Example: `handrail runs list --agent support-triage --limit 50`"""
    with opened() as runtime:
        now = runtime.clock.now()
        found = runtime.database.read_now(
            lambda conn: list_runs(conn, now, tenant=tenant, agent=agent, limit=limit, before=before)
        )
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No runs yet. `handrail demo` makes some; `handrail run AGENT TEXT` makes one.")
        return
    shown = table("run", "began", "agent", "user", "outcome", "path", "requests", "took", "cost", right=("requests",))
    for each in found:
        shown.add_row(
            each.run_id,
            show_time(each.started_at),
            excerpt(each.agent, 30),
            excerpt(f"{each.tenant}/{each.user}", 40),
            each.status + (f" ({each.fault})" if each.fault else ""),
            show_path(each.path),
            str(each.requests),
            show_duration(each.took),
            show_usd(each.cost),
        )
    console().print(shown)
    if len(found) == limit:
        console().print(f"[dim]More: --before {found[-1].run_id}[/]")


@app.command("show")
def show(run_id: Annotated[str, typer.Argument(help="A run id, or its beginning.")], as_json: AsJson = False) -> None:
    """One run: what was asked, how it ended, what happened on the way. Example: `handrail runs show run_01k`"""
    with opened() as runtime:
        run, asked, outcomes, spans = _load(runtime, run_id)
    if as_json:
        print_json({"run": run, "input": asked, "outcomes": outcomes, "spans": spans})
        return
    screen = console()
    screen.print(f"[bold]{run.run_id}[/]  {run.agent}  {run.status}  {show_path(run.path)}")
    screen.print(
        f"{show_time(run.started_at)}, {excerpt(run.tenant, 200)}/{excerpt(run.user, 200)}, "
        f"{excerpt(run.model or 'no model', 200)}, "
        f"{run.requests} model requests, {run.input_tokens:,} tokens in, {run.output_tokens:,} out, "
        f"{show_usd(run.cost)}"
    )
    if run.fingerprint:
        screen.print(f"[dim]agent {run.fingerprint.agent[:12]}, prompt {run.fingerprint.template[:12]}[/]")
    screen.print(f"\n[bold]Asked[/]  {excerpt(asked if isinstance(asked, str) else str(asked), 600)}")
    for each in outcomes:
        screen.print(f"[bold]{each.type}[/]  {excerpt(str(each.body.get('message', '')), 600)}")
        for name in ("output", "fault", "proposals", "reason"):
            if each.body.get(name):
                screen.print(f"  [dim]{name}: {excerpt(str(each.body[name]), 400)}[/]", soft_wrap=True)
    screen.print()
    screen.print(span_trees(f"trace {run.trace_id}", span_tree(spans)))


def _load(runtime: Runtime, run_id: str) -> tuple[RunView, object, Sequence[OutcomeView], Sequence[Span]]:
    now, read = runtime.clock.now(), runtime.database.read_now
    run = read(lambda conn: load_run(conn, run_id, now))
    asked = read(lambda conn: load_input(conn, run.run_id))
    outcomes = read(lambda conn: load_outcomes(conn, run.run_id))
    try:
        _, spans = read(lambda conn: load_trace(conn, run.trace_id, run.tenant))
    except NotFound:
        # A run that was stopped before its first span ended has none yet.
        return run, asked, outcomes, ()
    return run, asked, outcomes, [span for span in spans if span.run_id == run.run_id]
