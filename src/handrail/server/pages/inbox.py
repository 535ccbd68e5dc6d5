"""The inbox: approvals that wait for a decision, and the form to decide one."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.state_machine import why_not_permitted
from handrail.review.approvals.store import decide
from handrail.server.params import BeforeQuery, IdPath

from .context import PAGE_SIZE, Page, PageContext

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
async def list_approvals(
    page: Page, state: Annotated[State | Literal["all"], Query()] = "pending", before: BeforeQuery = None
) -> Response:
    """The approvals in one state, those that have waited longest first."""
    approvals = await page.queries.approvals(state=None if state == "all" else state, limit=PAGE_SIZE, before=before)
    return page.render(
        "inbox.html",
        approvals=approvals,
        state=state,
        states=STATES,
        before=before,
        more=len(approvals) == PAGE_SIZE,
        now=page.state.runtime.clock.now(),
    )


@router.get("/inbox/{approval_id}")
async def show_approval(page: Page, approval_id: IdPath) -> Response:
    """One approval with its arguments in full: nobody should decide on something they cannot read completely."""
    return await _render_approval(page, approval_id, problem=None, status=200)


@router.post("/inbox/{approval_id}")
async def submit_decision(page: Page, approval_id: IdPath) -> Response:
    """Records a decision."""
    fields = await page.form_fields()
    approval, runtime = await page.queries.approval(approval_id), page.state.runtime
    # Without a login, on this machine, the operator names who decides, as on the terminal with --by.
    by = page.principal.name or ""
    if not page.principal.logged_in:
        by = fields.get("by", "").strip() or by
    decision: Literal["approved", "denied"] = "approved" if fields.get("decision") == "approved" else "denied"
    note = fields.get("note") or None
    operation = decide(approval.approval_id, decision, by, runtime.settings.roles, note, runtime.clock.now())
    try:
        await runtime.database.write(operation)
    except NotPermitted as error:
        return await _render_approval(page, approval_id, problem=str(error), status=403)
    except AlreadyDecided as error:
        return await _render_approval(page, approval_id, problem=str(error), status=409)
    return page.redirect("inbox", approval.approval_id)


async def _render_approval(page: PageContext, approval_id: str, *, problem: str | None, status: int) -> Response:
    approval = await page.queries.approval(approval_id)
    now, roles = page.state.runtime.clock.now(), page.state.runtime.settings.roles
    return page.render(
        "approval.html",
        status,
        approval=approval,
        open=_is_open(approval, now),
        approver=_describe_approver(approval, roles),
        why_not=why_not_permitted(approval, page.principal.name or "", roles),
        problem=problem,
    )


def _is_open(approval: Approval, now: datetime) -> bool:
    return approval.state == "pending" and now < approval.expires_at


def _describe_approver(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    """Who may decide: the user who started the run, or a role with its members."""
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user}, who started the run"
    members = ", ".join(sorted(roles.get(role, ())))
    return f"{role} ({members})" if members else f"{role}; nobody has this role, see [roles] in handrail.toml"
