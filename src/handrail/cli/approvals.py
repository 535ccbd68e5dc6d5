"""`handrail approvals`: actions that need a person, the person's decision, and what became of uncertain ones."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

import typer
from rich.text import Text

from handrail.evals.spec import EVALS_TENANT
from handrail.kernel.text import format_json, sanitize
from handrail.review.approvals.labels import STATE_LABELS, is_uncertain, settlement_label
from handrail.review.approvals.model import Approval, StateFilter
from handrail.review.approvals.queries import list_approvals, load_approval, load_approvals
from handrail.review.approvals.store import decide, settle_uncertain

from .options import AsJson, By, Limit, Tenant, resolve_by
from .output import add_cells, console, excerpt, format_time, print_json, table
from .runtime import open_runtime

app = typer.Typer(help="Irreversible actions that wait for a person's decision.", no_args_is_help=True)

ApprovalId = Annotated[str, typer.Argument(help="An approval's id, or the beginning of it.")]
DecisionNote = Annotated[str | None, typer.Option(help="Why; stored with the decision.")]


@app.command("list")
def list_(
    state: Annotated[
        Literal[StateFilter, "all"],
        typer.Option(help="Only approvals in this state; `open` are those that are `uncertain` or `pending`."),
    ] = "open",
    tenant: Tenant = None,
    limit: Limit = 20,
    before: Annotated[
        str | None, typer.Option(help="List the page after the one that ends with this approval.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List approvals, the oldest first; without --state, those that need a person.

    Among these, uncertain actions come first: they are approved, and may have happened.

    Example: `handrail approvals list --tenant acme`
    """
    with open_runtime() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        approvals = runtime.database.read_now(
            list_approvals(
                now,
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
        console().print(
            "No approvals. Calls of irreversible tools wait here, and actions of which nobody knows whether they "
            "happened; `handrail runs list` shows the runs."
        )
        return
    _print_list(approvals, now, roles)
    if len(approvals) == limit:
        console().print(f"[dim]Next page: --before {approvals[-1].approval_id}[/]")


@app.command("show")
def show(approval_id: ApprovalId, as_json: AsJson = False) -> None:
    """Show one approval, with everything that the action would do.

    Example: `handrail approvals show apr_01k`
    """
    with open_runtime() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        approval = runtime.database.read_now(load_approval(approval_id, now))
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
    if approval.settled_at is not None:
        who = excerpt(approval.settled_by or "the tool's reconcile", 100)
        screen.print(f"settled {format_time(approval.settled_at)} by {who}: {settlement_label(approval)}")
    if approval.reason:
        screen.print(f"reason: {excerpt(approval.reason, 2_000)}")
    screen.print(f"\n[bold]{excerpt(approval.tool, 200)}[/]{'  (idempotent)' if approval.idempotent else ''}")
    for name, value in approval.arguments.items():
        # Never shortened: people must be able to read everything that they approve.
        screen.print(Text(f"  {sanitize(format_json(name))}: {sanitize(format_json(value))}"), soft_wrap=True)
    if approval.result is not None:
        label = "error" if is_uncertain(approval) else "result"
        screen.print(f"\n{label}: {excerpt(format_json(approval.result), 2_000)}")
    if is_uncertain(approval):
        screen.print(f"\n{_how_to_settle(approval)}", soft_wrap=True)


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


@app.command("settle")
def settle(
    approval_id: ApprovalId,
    happened: Annotated[
        bool, typer.Option("--happened/--again", help="Whether the action happened; if not, it is executed again.")
    ],
    by: By = None,
    note: Annotated[str | None, typer.Option(help="How you know; stored with your answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an uncertain action happened: its tool raised, or its process died.

    The run goes on either way. Look first where the action would show: after --again it may happen twice, unless the
    tool is idempotent.

    Examples: `handrail approvals settle apr_01k --happened --by ann --note "the bank shows it"`,
    `handrail approvals settle apr_01k --again --by ann`
    """
    person = resolve_by(by)
    with open_runtime() as runtime:
        now, roles, read = runtime.clock.now(), runtime.settings.roles, runtime.database.read_now
        approval = read(load_approval(approval_id, now))
        operation = settle_uncertain(approval.approval_id, happened, person, roles, note, now)
        [settled] = runtime.database.write_now(operation)
        siblings = read(load_approvals(approval.run_id, now))
    if as_json:
        print_json(settled)
        return
    answer = "It happened" if happened else "It did not happen, and is executed again"
    console().print(f"{answer}, says {excerpt(person, 100)}: {excerpt(_format_call(settled), 400)}")
    others = [s.approval_id for s in siblings if s.round == approval.round and is_uncertain(s)]
    _print_resumption(approval.run_id, "settled", others)


def _decide(
    approval_id: str, decision: Literal["approved", "denied"], by: str | None, note: str | None, *, as_json: bool
) -> None:
    person = resolve_by(by)
    with open_runtime() as runtime:
        now, roles, read = runtime.clock.now(), runtime.settings.roles, runtime.database.read_now
        approval = read(load_approval(approval_id, now))
        [decided] = runtime.database.write_now(decide(approval.approval_id, decision, person, roles, note, now))
        siblings = read(load_approvals(approval.run_id, now))
    if as_json:
        print_json(decided)
        return
    console().print(f"{decision.capitalize()} by {excerpt(person, 100)}: {excerpt(_format_call(decided), 400)}")
    pending = [s.approval_id for s in siblings if s.round == approval.round and s.state == "pending"]
    _print_resumption(approval.run_id, "decided", pending)


def _print_list(approvals: Sequence[Approval], now: datetime, roles: Mapping[str, Collection[str]]) -> None:
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
    if any(map(is_uncertain, approvals)):
        console().print(
            "[dim]`handrail approvals settle ID` says whether an action happened that may have happened.[/]"
        )


def _print_resumption(run_id: str, settled: str, others: Sequence[str]) -> None:
    """Says what resumes the run, or for which other approvals it still waits."""
    if others:
        console().print(f"The run resumes once the others are {settled} too: {', '.join(others)}", soft_wrap=True)
    else:
        console().print(f"`handrail worker` resumes {run_id}.", soft_wrap=True)


def _how_to_settle(approval: Approval) -> str:
    return (
        f"It may have happened. Look where it would show (its idempotency key is {approval.approval_id}), then say "
        f"whether it did: `handrail approvals settle {approval.approval_id} --happened`, or `--again` to execute it "
        "once more."
    )


def _format_approver(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user} ({approval.approver})"
    return f"{role} ({', '.join(sorted(roles.get(role, ()))) or 'nobody; see [roles] in handrail.toml'})"


def _format_call(approval: Approval) -> str:
    return f"{approval.tool}({', '.join(f'{name}={format_json(value)}' for name, value in approval.arguments.items())})"


def _format_state(approval: Approval, now: datetime) -> str:
    if approval.state == "pending":
        return f"[yellow]pending[/], expires in {_format_rough(approval.expires_at - now)}"
    if is_uncertain(approval):
        return f"[red]needs a person[/]: {STATE_LABELS[approval.state]}"
    by = f" (decided by {excerpt(approval.decided_by, 60)})" if approval.decided_by else ""
    return STATE_LABELS[approval.state] + by


def _format_rough(left: timedelta) -> str:
    minutes = left // timedelta(minutes=1)
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"
