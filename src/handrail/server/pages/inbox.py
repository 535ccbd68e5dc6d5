"""What waits for a person, and the person's decision."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.state_machine import why_not
from handrail.review.approvals.store import decide
from handrail.server.params import Before, Id

from .context import PAGE, Look, Looking

router = APIRouter(include_in_schema=False)

STATES: tuple[State | Literal["all"], ...] = (
    "pending",
    "approved",
    "denied",
    "expired",
    "executing",
    "executed",
    "failed",
    "unknown_after_crash",
    "withdrawn",
    "all",
)


@router.get("/inbox")
async def list_(
    look: Looking, state: Annotated[State | Literal["all"], Query()] = "pending", before: Before = None
) -> Response:
    """The approvals that wait, longest first."""
    found = await look.reads.approvals(state=None if state == "all" else state, limit=PAGE, before=before)
    return look.page(
        "inbox.html",
        approvals=found,
        state=state,
        states=STATES,
        before=before,
        more=len(found) == PAGE,
        now=look.site.runtime.clock.now(),
    )


@router.get("/inbox/{approval_id}")
async def show(look: Looking, approval_id: Id) -> Response:
    """One approval, whole: nobody should decide what they could not read to its end."""
    return await _show(look, approval_id, problem=None, status=200)


@router.post("/inbox/{approval_id}")
async def take_decision(look: Looking, approval_id: Id) -> Response:
    """Takes the visitor's decision."""
    fields = await look.form()
    found, runtime = await look.reads.approval(approval_id), look.site.runtime
    # On this machine, without a login, the operator says in whose name they decide, as on the terminal.
    by = look.visitor.person or ""
    if not look.visitor.logged_in:
        by = fields.get("by", "").strip() or by
    verdict: Literal["approved", "denied"] = "approved" if fields.get("verdict") == "approved" else "denied"
    op = decide(found.approval_id, verdict, by, runtime.settings.roles, fields.get("note") or None, runtime.clock.now())
    try:
        await runtime.database.write(op)
    except NotPermitted as error:
        return await _show(look, approval_id, problem=str(error), status=403)
    except AlreadyDecided as error:
        return await _show(look, approval_id, problem=str(error), status=409)
    return look.back("inbox", found.approval_id)


async def _show(look: Look, approval_id: str, *, problem: str | None, status: int) -> Response:
    found = await look.reads.approval(approval_id)
    runtime = look.site.runtime
    now, roles = runtime.clock.now(), runtime.settings.roles
    return look.page(
        "approval.html",
        status,
        approval=found,
        open=is_open(found, now),
        who=who_decides(found, roles),
        why_not=why_not(found, look.visitor.person or "", roles),
        problem=problem,
    )


def is_open(approval: Approval, now: datetime) -> bool:
    """Whether a decision would count."""
    return approval.state == "pending" and now < approval.expires_at


def who_decides(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    """The approver in words."""
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user}, who started the run"
    people = ", ".join(sorted(roles.get(role, ())))
    return f"{role} ({people})" if people else f"{role}; nobody has this role, see [roles] in handrail.toml"
