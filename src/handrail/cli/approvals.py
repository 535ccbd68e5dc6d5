"""`handrail approvals`: what waits for a person, and the person's decision."""

import getpass
import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

import typer
from rich.text import Text

from handrail.evals.tenant import TENANT as EVALS
from handrail.kernel.errors import BadInput
from handrail.kernel.text import sanitize
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.store import approvals_of, decide, list_approvals, load_approval

from .output import AsJson, console, excerpt, print_json, show_time, table
from .runtime import opened

app = typer.Typer(help="What waits for a person, and the person's decision.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="An approval's id, or its beginning.")]
By = Annotated[str | None, typer.Option(help="Who decides; the system's user name where it is not given.")]
Note = Annotated[str | None, typer.Option(help="What the run's record says beside the decision.")]


@app.command("list")
def list_(
    state: Annotated[Literal[State, "all"], typer.Option(help="How they stand.")] = "pending",
    tenant: Annotated[str | None, typer.Option(help=f"Only this tenant's; '{EVALS}' are the trials'.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    before: Annotated[str | None, typer.Option(help="The page after the one that ends with this approval.")] = None,
    as_json: AsJson = False,
) -> None:
    """The approvals that wait, longest first. Example: `handrail approvals list --tenant acme`"""
    with opened() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        found = runtime.database.read_now(
            lambda conn: list_approvals(
                conn,
                state=None if state == "all" else state,
                tenant=tenant,
                limit=limit,
                before=before,
                hidden=() if tenant == EVALS else (EVALS,),
            )
        )
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No approvals. An irreversible tool's call waits here; `handrail runs list` shows the runs.")
        return
    shown = table("approval", "since", "who decides", "agent", "what", "state")
    for each in found:
        shown.add_row(
            each.approval_id,
            show_time(each.proposed_at),
            excerpt(_who(each, roles), 60),
            excerpt(each.agent, 30),
            excerpt(_call(each), 80),
            _standing(each, now),
        )
    console().print(shown)
    if len(found) == limit:
        console().print(f"[dim]More: --before {found[-1].approval_id}[/]")


@app.command("show")
def show(approval_id: Id, as_json: AsJson = False) -> None:
    """One approval, with all that would be done. Example: `handrail approvals show apr_01k`"""
    with opened() as runtime:
        now, roles = runtime.clock.now(), runtime.settings.roles
        found = runtime.database.read_now(lambda conn: load_approval(conn, approval_id))
    if as_json:
        print_json(found)
        return
    screen = console()
    screen.print(f"[bold]{found.approval_id}[/]  {_standing(found, now)}")
    screen.print(
        f"{excerpt(found.agent, 200)} in {found.run_id}, for {excerpt(f'{found.tenant}/{found.user}', 400)}, "
        f"since {show_time(found.proposed_at)}, until {show_time(found.expires_at)}"
    )
    screen.print(f"to be decided by {excerpt(_who(found, roles), 1_000)}")
    if found.decided_at is not None:
        screen.print(f"decided {show_time(found.decided_at)}")
    if found.note:
        screen.print(f"note: {excerpt(found.note, 2_000)}")
    screen.print(f"\n[bold]{excerpt(found.tool, 200)}[/]{'  (idempotent)' if found.idempotent else ''}")
    for name, value in found.arguments.items():
        # Whole: nobody should approve what they could not read to its end.
        screen.print(Text(f"  {sanitize(_json(name))}: {sanitize(_json(value))}"), soft_wrap=True)
    if found.result is not None:
        screen.print(f"\nresult: {excerpt(_json(found.result), 2_000)}")


@app.command("approve")
def approve(approval_id: Id, by: By = None, note: Note = None, as_json: AsJson = False) -> None:
    """Let the action happen. Example: `handrail approvals approve apr_01k --by ann`"""
    _decide(approval_id, "approved", by, note, as_json=as_json)


@app.command("deny")
def deny(approval_id: Id, by: By = None, note: Note = None, as_json: AsJson = False) -> None:
    """Keep the action from happening. Example: `handrail approvals deny apr_01k --note "already refunded"`"""
    _decide(approval_id, "denied", by, note, as_json=as_json)


def _decide(
    approval_id: str, verdict: Literal["approved", "denied"], by: str | None, note: str | None, *, as_json: bool
) -> None:
    person = by or _system_user()
    with opened() as runtime:
        now, roles, read = runtime.clock.now(), runtime.settings.roles, runtime.database.read_now
        found = read(lambda conn: load_approval(conn, approval_id))
        [decided] = runtime.database.write_now(decide(found.approval_id, verdict, person, roles, note, now))
        of_run = read(lambda conn: approvals_of(conn, found.run_id))
    if as_json:
        print_json(decided)
        return
    console().print(f"{verdict.capitalize()} by {excerpt(person, 100)}: {excerpt(_call(decided), 400)}")
    waiting = [each.approval_id for each in of_run if each.round == found.round and each.state == "pending"]
    if waiting:
        console().print(f"The run goes on once the rest is decided: {', '.join(waiting)}", soft_wrap=True)
    else:
        console().print(f"`handrail worker` resumes {found.run_id}.", soft_wrap=True)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        raise BadInput("the system does not say who you are; name yourself with --by") from None


def _who(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user} ({approval.approver})"
    return f"{role} ({', '.join(sorted(roles.get(role, ()))) or 'nobody; see [roles] in handrail.toml'})"


def _call(approval: Approval) -> str:
    return f"{approval.tool}({', '.join(f'{name}={_json(value)}' for name, value in approval.arguments.items())})"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _standing(approval: Approval, now: datetime) -> str:
    if approval.state == "pending":
        left = approval.expires_at - now
        return f"[yellow]pending[/], expires in {_rough(left)}" if left > timedelta(0) else "pending, overdue"
    by = f" (decided by {excerpt(approval.decided_by, 60)})" if approval.decided_by else ""
    return approval.state.replace("_", " ") + by


def _rough(left: timedelta) -> str:
    minutes = left // timedelta(minutes=1)
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"
