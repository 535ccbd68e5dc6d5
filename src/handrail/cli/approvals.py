"""`handrail approvals`: actions that wait for a person, and the person's decision."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

import typer
from rich.text import Text

from handrail.evals.spec import EVALS_TENANT
from handrail.kernel.text import format_json, sanitize
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.store import decide, list_approvals, load_approval, load_approvals

from .options import AsJson, By, Limit, Tenant, resolve_by
from .output import add_cells, console, excerpt, format_time, print_json, table
from .runtime import open_runtime

app = typer.Typer(help="Irreversible actions that wait for a person's decision.", no_args_is_help=True)

ApprovalId = Annotated[str, typer.Argument(help="An approval's id, or the beginning of it.")]
DecisionNote = Annotated[str | None, typer.Option(help="Why; stored with the decision.")]


@app.command("list")
def list_(
    state: Annotated[Literal[State, "all"], typer.Option(help="Only approvals in this state.")] = "pending",
    tenant: Tenant = None,
    limit: Limit = 20,
    before: Annotated[
        str | None, typer.Option(help="List the page after the one that ends with this approval.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List approvals, the oldest first; without --state, those that are pending.

    Example: `handrail approvals list --tenant acme`
    """
    with open_runtime() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        approvals = runtime.database.read_now(
            list_approvals(
                state=None if state == "all" else state,
                tenant=tenant,
                limit=limit,
                before=before,
                hidden=() if tenant == EVALS_TENANT else (EVALS_TENANT,),
            )
        )
    if as_json:
        print_json(approvals)
        return
    if not approvals:
        console().print("No approvals. Calls of irreversible tools wait here; `handrail runs list` shows the runs.")
        return
    columns = ("approval", "proposed", "who decides", "agent", "action", "state")
    rows = table(*columns, wide_only=("proposed", "agent"))
    for approval in approvals:
        add_cells(
            rows,
            {
                "approval": approval.approval_id,
                "proposed": format_time(approval.proposed_at),
                "who decides": excerpt(_format_approver(approval, roles), 60),
                "agent": excerpt(approval.agent, 30),
                "action": excerpt(_format_call(approval), 80),
                "state": _format_state(approval, now),
            },
        )
    console().print(rows)
    if len(approvals) == limit:
        console().print(f"[dim]Next page: --before {approvals[-1].approval_id}[/]")


@app.command("show")
def show(approval_id: ApprovalId, as_json: AsJson = False) -> None:
    """Show one approval, with everything that the action would do.

    Example: `handrail approvals show apr_01k`
    """
    with open_runtime() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        approval = runtime.database.read_now(load_approval(approval_id))
    if as_json:
        print_json(approval)
        return
    screen = console()
    screen.print(f"[bold]{approval.approval_id}[/]  {_format_state(approval, now)}")
    screen.print(
        f"{excerpt(approval.agent, 200)} in {approval.run_id}, "
        f"for {excerpt(f'{approval.tenant}/{approval.user}', 400)}, "
        f"proposed {format_time(approval.proposed_at)}, expires {format_time(approval.expires_at)}"
    )
    screen.print(f"to be decided by {excerpt(_format_approver(approval, roles), 1_000)}")
    if approval.decided_at is not None:
        screen.print(f"decided {format_time(approval.decided_at)}")
    if approval.note:
        screen.print(f"note: {excerpt(approval.note, 2_000)}")
    screen.print(f"\n[bold]{excerpt(approval.tool, 200)}[/]{'  (idempotent)' if approval.idempotent else ''}")
    for name, value in approval.arguments.items():
        # Never shortened: people must be able to read everything that they approve.
        screen.print(Text(f"  {sanitize(format_json(name))}: {sanitize(format_json(value))}"), soft_wrap=True)
    if approval.result is not None:
        screen.print(f"\nresult: {excerpt(format_json(approval.result), 2_000)}")


@app.command("approve")
def approve(approval_id: ApprovalId, by: By = None, note: DecisionNote = None, as_json: AsJson = False) -> None:
    """Let the action be executed.

    Example: `handrail approvals approve apr_01k --by ann`
    """
    _decide(approval_id, "approved", by, note, as_json=as_json)


@app.command("deny")
def deny(approval_id: ApprovalId, by: By = None, note: DecisionNote = None, as_json: AsJson = False) -> None:
    """Keep the action from being executed.

    Example: `handrail approvals deny apr_01k --note "already refunded"`
    """
    _decide(approval_id, "denied", by, note, as_json=as_json)


def _decide(
    approval_id: str, decision: Literal["approved", "denied"], by: str | None, note: str | None, *, as_json: bool
) -> None:
    person = resolve_by(by)
    with open_runtime() as runtime:
        now, roles, read = runtime.clock.now(), runtime.settings.roles, runtime.database.read_now
        approval = read(load_approval(approval_id))
        [decided] = runtime.database.write_now(decide(approval.approval_id, decision, person, roles, note, now))
        siblings = read(load_approvals(approval.run_id))
    if as_json:
        print_json(decided)
        return
    console().print(f"{decision.capitalize()} by {excerpt(person, 100)}: {excerpt(_format_call(decided), 400)}")
    pending = [s.approval_id for s in siblings if s.round == approval.round and s.state == "pending"]
    if pending:
        console().print(f"The run resumes once the others are decided too: {', '.join(pending)}", soft_wrap=True)
    else:
        console().print(f"`handrail worker` resumes {approval.run_id}.", soft_wrap=True)


def _format_approver(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user} ({approval.approver})"
    return f"{role} ({', '.join(sorted(roles.get(role, ()))) or 'nobody; see [roles] in handrail.toml'})"


def _format_call(approval: Approval) -> str:
    return f"{approval.tool}({', '.join(f'{name}={format_json(value)}' for name, value in approval.arguments.items())})"


def _format_state(approval: Approval, now: datetime) -> str:
    if approval.state == "pending":
        left = approval.expires_at - now
        return f"[yellow]pending[/], expires in {_format_rough(left)}" if left > timedelta(0) else "pending, overdue"
    by = f" (decided by {excerpt(approval.decided_by, 60)})" if approval.decided_by else ""
    return approval.state.replace("_", " ") + by


def _format_rough(left: timedelta) -> str:
    minutes = left // timedelta(minutes=1)
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"
