"""`handrail runs`: lists runs, shows one, and records feedback on one."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import Connection

from handrail.kernel.db.operation import operation
from handrail.kernel.errors import NotFound
from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration
from handrail.review.approvals.labels import STATE_LABELS, is_uncertain, settlement_label
from handrail.review.approvals.model import Approval
from handrail.review.approvals.queries import load_approvals
from handrail.review.feedback import Feedback, load_feedback
from handrail.runs.feedback import feedback
from handrail.runs.store.queries import OutcomeView, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace

from .options import AsJson, By, Expected, Limit, Tenant, parse_fields, resolve_by
from .output import add_cells, console, count, excerpt, format_path, format_time, print_json, render_span_tree, table
from .runtime import open_runtime

app = typer.Typer(help="Runs, how they ended and why.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")]


@app.command("list")
def list_(
    tenant: Tenant = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    limit: Limit = 20,
    before: Annotated[str | None, typer.Option(help="List the page after the one that ends with this run.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    Example: `handrail runs list --agent support-triage --limit 50`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        runs = runtime.database.read_now(list_runs(now, tenant=tenant, agent=agent, limit=limit, before=before))
    if as_json:
        print_json(runs)
        return
    if not runs:
        console().print("No runs yet. `handrail demo` starts some; `handrail run AGENT TEXT` starts one.")
        return
    columns = ("run", "started", "agent", "user", "outcome", "path", "requests", "duration", "cost")
    rows = table(*columns, right=columns[-3:], wide_only=("started", "user", "requests", "duration"))
    for run in runs:
        add_cells(
            rows,
            {
                "run": run.run_id,
                "started": format_time(run.started_at),
                "agent": excerpt(run.agent, 30),
                "user": excerpt(f"{run.tenant}/{run.user}", 40),
                "outcome": run.status + (f" ({run.fault})" if run.fault else ""),
                "path": format_path(run.path),
                "requests": str(run.requests),
                "duration": format_duration(run.duration),
                "cost": format_usd(run.cost),
            },
        )
    console().print(rows)
    if len(runs) == limit:
        console().print(f"[dim]Next page: --before {runs[-1].run_id}[/]")


@app.command("feedback")
def give_feedback(
    run_id: RunId,
    right: Annotated[bool, typer.Option("--right/--wrong", help="Whether the outcome was right.")],
    expected: Expected = None,
    note: Annotated[str | None, typer.Option(help="Why, for those who read it later.")] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a run's outcome was right, and what it should have been. The newest feedback counts.

    Example: `handrail runs feedback run_01k --wrong --expected refund=true --expected category=billing`
    """
    with open_runtime() as runtime:
        now, fields = runtime.clock.now(), parse_fields(expected or ()) or None
        stored = asyncio.run(feedback(run_id, right=right, by=resolve_by(by), expected=fields, note=note))
        run = runtime.database.read_now(load_run(stored.run_id, now))
    if as_json:
        print_json(stored)
        return
    console().print(f"Feedback on {stored.run_id} by {excerpt(stored.by, 100)}: {'right' if right else 'wrong'}.")
    command = f'handrail eval add {excerpt(run.agent, 80)} --from-run {stored.run_id} --why "..."'
    console().print(f"[dim]`{command}` adds it to the eval set.[/]", soft_wrap=True)


@app.command("show")
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Show one run: its input, outcomes, approvals, feedback and spans.

    Example: `handrail runs show run_01k`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        details = runtime.database.read_now(_load_details(run_id, now))
    if as_json:
        print_json(asdict(details))
        return
    run, screen = details.run, console()
    screen.print(f"[bold]{run.run_id}[/]  {run.agent}  {run.status}  {format_path(run.path)}")
    screen.print(
        f"{format_time(run.started_at)}, {excerpt(run.tenant, 200)}/{excerpt(run.user, 200)}, "
        f"{excerpt(run.model or 'no model', 200)}, "
        f"{count(run.requests, 'model request')}, {run.input_tokens:,} tokens in, {run.output_tokens:,} out, "
        f"{format_usd(run.cost)}"
    )
    if run.fingerprint:
        screen.print(f"[dim]agent {run.fingerprint.agent[:12]}, prompt {run.fingerprint.template[:12]}[/]")
    screen.print(f"\n[bold]Input[/]  {excerpt(str(details.input), 600)}")
    for outcome in details.outcomes:
        _print_outcome(screen, outcome)
    for approval in details.approvals:
        _print_approval(screen, approval)
    for entry in details.feedback:
        _print_feedback(screen, entry)
    screen.print()
    screen.print(render_span_tree(f"trace {run.trace_id}", span_tree(details.spans)))


@dataclass(frozen=True, kw_only=True)
class _RunDetails:
    """All that is stored of one run."""

    run: RunView
    input: object
    outcomes: Sequence[OutcomeView]
    approvals: Sequence[Approval]
    feedback: Sequence[Feedback]
    spans: Sequence[Span]


@operation
def _load_details(conn: Connection, run_id: str, now: datetime) -> _RunDetails:
    run = load_run(run_id, now)(conn)
    try:
        _, spans = load_trace(run.trace_id, run.tenant)(conn)
    except NotFound:
        # A run that was stopped before its first span ended has no trace.
        spans = []
    return _RunDetails(
        run=run,
        input=load_input(run.run_id)(conn),
        outcomes=load_outcomes(run.run_id)(conn),
        approvals=load_approvals(run.run_id, now)(conn),
        feedback=load_feedback(run.run_id)(conn),
        spans=[span for span in spans if span.run_id == run.run_id],
    )


def _print_outcome(screen: Console, outcome: OutcomeView) -> None:
    message = excerpt(str(outcome.body.get("message", "")), 600)
    screen.print(f"[dim]{format_time(outcome.at)}[/]  [bold]{outcome.type}[/]  {message}", soft_wrap=True)
    for name in ("output", "fault", "reason", "detail", "proposals", "refusal"):
        if outcome.body.get(name):
            screen.print(f"  [dim]{name}: {excerpt(str(outcome.body[name]), 400)}[/]", soft_wrap=True)


def _print_approval(screen: Console, approval: Approval) -> None:
    call = excerpt(f"{approval.tool} {dict(approval.arguments)}", 200)
    if approval.decided_at is not None:
        at, duration = approval.decided_at, f" after {format_duration(approval.decided_at - approval.proposed_at)}"
    else:
        at, duration = approval.proposed_at, ""
    if approval.decided_by:
        who = f"by {approval.decided_by}, {approval.note or 'no note'}"
    else:
        who = f"to be decided by {approval.approver}"
    label = STATE_LABELS[approval.state]
    label = f"[red]needs a person[/]: {label}" if is_uncertain(approval) else f"[cyan]{label}[/]"
    state = f"{label}{duration}, {excerpt(who, 300)}"
    screen.print(f"[dim]{format_time(at)}[/]  {call}: {state}  [dim]{approval.approval_id}[/]", soft_wrap=True)
    if approval.settled_at is not None:
        person = excerpt(approval.settled_by or "the tool's reconcile", 100)
        settled = f"settled {format_time(approval.settled_at)} by {person}: {settlement_label(approval)}"
        screen.print(f"  [dim]{settled}[/]", soft_wrap=True)
    if approval.reason:
        screen.print(f"  [dim]reason: {excerpt(approval.reason, 400)}[/]", soft_wrap=True)


def _print_feedback(screen: Console, entry: Feedback) -> None:
    judgement = "[green]right[/]" if entry.right else "[red]wrong[/]"
    details = [
        f"expected {dict(entry.expected)}" if entry.expected else None,
        entry.note,
        f"case {entry.case_id}" if entry.case_id else None,
    ]
    suffix = excerpt("".join(f", {detail}" for detail in details if detail), 400)
    screen.print(f"[dim]{format_time(entry.at)}[/]  {judgement}, by {excerpt(entry.by, 100)}{suffix}", soft_wrap=True)
