"""`handrail runs`: how runs ended, and the story of one."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import Connection

from handrail.evals.tenant import TENANT as EVALS
from handrail.kernel.errors import NotFound
from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration
from handrail.review.approvals.model import Approval
from handrail.review.approvals.store import approvals_of
from handrail.review.feedback import Verdict, verdicts_of
from handrail.runs.feedback import feedback
from handrail.runs.store.runs import OutcomeView, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace

from .options import By, Should, person, read_fields
from .output import AsJson, console, excerpt, print_json, show_path, show_time, span_trees, table
from .runtime import opened

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
            format_duration(each.took),
            show_usd(each.cost),
        )
    console().print(shown)
    if len(found) == limit:
        console().print(f"[dim]More: --before {found[-1].run_id}[/]")


@app.command("mark")
def mark(
    run_id: Annotated[str, typer.Argument(help="A run id, or its beginning.")],
    right: Annotated[bool, typer.Option("--right/--wrong", help="Whether the outcome was right.")],
    should: Should = None,
    note: Annotated[str | None, typer.Option(help="Why, for those who read it later.")] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a run's outcome was right, and what it should have been. The newest verdict counts.

    Example: `handrail runs mark run_01k --wrong --should refund=true --should category=billing`
    """
    with opened() as runtime:
        now, fields = runtime.clock.now(), read_fields(should or ()) or None
        verdict = asyncio.run(feedback(run_id, right=right, by=person(by), should=fields, note=note))
        run = runtime.database.read_now(lambda conn: load_run(conn, verdict.run_id, now))
    if as_json:
        print_json(verdict)
        return
    console().print(f"{verdict.run_id} is {'right' if right else 'wrong'}, says {excerpt(verdict.by, 100)}.")
    command = f'handrail eval add {excerpt(run.agent, 80)} --from-run {verdict.run_id} --why "..."'
    console().print(f"[dim]`{command}` makes a case of it.[/]", soft_wrap=True)


@app.command("show")
def show(run_id: Annotated[str, typer.Argument(help="A run id, or its beginning.")], as_json: AsJson = False) -> None:
    """One run: what was asked, how it ended, what happened on the way. Example: `handrail runs show run_01k`"""
    with opened() as runtime:
        now = runtime.clock.now()
        story = runtime.database.read_now(lambda conn: _load(conn, run_id, now))
    if as_json:
        print_json(asdict(story))
        return
    run, asked = story.run, story.input
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
    for outcome in story.outcomes:
        _show_outcome(screen, outcome)
    for approval in story.approvals:
        _show_approval(screen, approval)
    for verdict in story.verdicts:
        _show_verdict(screen, verdict)
    screen.print()
    screen.print(span_trees(f"trace {run.trace_id}", span_tree(story.spans)))


@dataclass(frozen=True, kw_only=True)
class _Story:
    """All that is known of one run."""

    run: RunView
    input: object
    outcomes: Sequence[OutcomeView]
    approvals: Sequence[Approval]
    verdicts: Sequence[Verdict]
    spans: Sequence[Span]


def _load(conn: Connection, run_id: str, now: datetime) -> _Story:
    run = load_run(conn, run_id, now)
    try:
        _, spans = load_trace(conn, run.trace_id, run.tenant)
    except NotFound:
        # A run that was stopped before its first span ended has none yet.
        spans = []
    return _Story(
        run=run,
        input=load_input(conn, run.run_id),
        outcomes=load_outcomes(conn, run.run_id),
        approvals=approvals_of(conn, run.run_id),
        verdicts=verdicts_of(conn, run.run_id),
        spans=[span for span in spans if span.run_id == run.run_id],
    )


def _show_outcome(screen: Console, outcome: OutcomeView) -> None:
    message = excerpt(str(outcome.body.get("message", "")), 600)
    screen.print(f"[dim]{show_time(outcome.at)}[/]  [bold]{outcome.type}[/]  {message}", soft_wrap=True)
    for name in ("output", "fault", "reason", "detail", "proposals", "refusal"):
        if outcome.body.get(name):
            screen.print(f"  [dim]{name}: {excerpt(str(outcome.body[name]), 400)}[/]", soft_wrap=True)


def _show_approval(screen: Console, each: Approval) -> None:
    moment = each.decided_at or each.proposed_at
    who = f" by {each.decided_by}, {each.note or 'no note'}" if each.decided_by else f", for {each.approver} to decide"
    call = excerpt(f"{each.tool} {dict(each.arguments)}", 200)
    waited = f" after {format_duration(each.decided_at - each.proposed_at)}" if each.decided_at else ""
    state = f"[cyan]{each.state}[/]{waited}{excerpt(who, 300)}"
    screen.print(f"[dim]{show_time(moment)}[/]  {call}: {state}  [dim]{each.approval_id}[/]", soft_wrap=True)


def _show_verdict(screen: Console, each: Verdict) -> None:
    word = "[green]right[/]" if each.right else "[red]wrong[/]"
    should = f", should be {dict(each.should)}" if each.should else ""
    case = f", case {each.case_id}" if each.case_id else ""
    said = excerpt(f"{should}{', ' + each.note if each.note else ''}{case}", 400)
    screen.print(f"[dim]{show_time(each.at)}[/]  {word}, says {excerpt(each.by, 100)}{said}", soft_wrap=True)
