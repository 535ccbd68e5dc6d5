"""The inbox: actions that need a person, the form to decide one, and the form to settle an uncertain one."""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal, TypeAlias

from fastapi import APIRouter, Query
from starlette.responses import Response

from handrail.kernel.errors import BadInput
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted
from handrail.review.approvals.labels import STATE_LABELS, is_uncertain
from handrail.review.approvals.model import Approval, StateFilter
from handrail.review.approvals.state_machine import why_not_permitted
from handrail.review.approvals.store import decide, settle_uncertain
from handrail.server.params import BeforeQuery, IdPath

from .context import PAGE_SIZE, Page, PageContext

router = APIRouter(include_in_schema=False)

SettlementAnswer: TypeAlias = Literal["happened", "again"]

STATES: Mapping[str, str] = {
    "open": "needs a person",
    "uncertain": "may have happened",
    **{str(state): label for state, label in STATE_LABELS.items()},
    "all": "all",
}
"""What the list may be limited to, with its name in the form."""


@router.get("/inbox")
async def list_approvals(
    page: Page, state: Annotated[StateFilter | Literal["all"], Query()] = "open", before: BeforeQuery = None
) -> Response:
    """The approvals that need a person or are in one state, those that have waited longest first."""
    approvals = await page.queries.approvals(state=None if state == "all" else state, limit=PAGE_SIZE, before=before)
    return page.render(
        "inbox.html",
        approvals=approvals,
        state=state,
        states=STATES,
        before=before,
        more=len(approvals) == PAGE_SIZE,
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
    decision: Literal["approved", "denied"] = "approved" if fields.get("decision") == "approved" else "denied"
    by, note = _person(page, fields), fields.get("note") or None
    operation = decide(approval.approval_id, decision, by, runtime.settings.roles, note, runtime.clock.now())
    try:
        await runtime.database.write(operation)
    except NotPermitted as error:
        return await _render_approval(page, approval_id, problem=str(error), status=403)
    except AlreadyDecided as error:
        return await _render_approval(page, approval_id, problem=str(error), status=409)
    return page.redirect("inbox", approval.approval_id)


@router.get("/inbox/{approval_id}/settlement")
async def confirm_settlement(page: Page, approval_id: IdPath, answer: Annotated[SettlementAnswer, Query()]) -> Response:
    """Says what an answer leads to, and asks for confirmation: an action that is executed again may happen twice."""
    approval, roles = await page.queries.approval(approval_id), page.state.runtime.settings.roles
    if not is_uncertain(approval):
        problem = f"whether this action happened is not in doubt: it is {STATE_LABELS[approval.state]}"
        return await _render_approval(page, approval_id, problem=problem, status=409)
    why_not = why_not_permitted(approval, page.principal.name or "", roles)
    if why_not and page.principal.logged_in:
        return await _render_approval(page, approval_id, problem=f"You cannot settle this: {why_not}.", status=403)
    return page.render("settlement.html", approval=approval, happened=answer == "happened")


@router.post("/inbox/{approval_id}/settlement")
async def submit_settlement(page: Page, approval_id: IdPath) -> Response:
    """Records whether an uncertain action happened."""
    fields = await page.form_fields()
    approval, runtime = await page.queries.approval(approval_id), page.state.runtime
    by, note, answer = _person(page, fields), fields.get("note") or None, fields.get("answer")
    if answer not in ("happened", "again"):
        raise BadInput("answer: say whether the action happened; send the form from the page of the approval")
    happened, roles, now = answer == "happened", runtime.settings.roles, runtime.clock.now()
    try:
        await runtime.database.write(settle_uncertain(approval.approval_id, happened, by, roles, note, now))
    except NotPermitted as error:
        return await _render_approval(page, approval_id, problem=str(error), status=403)
    except AlreadyDecided as error:
        return await _render_approval(page, approval_id, problem=str(error), status=409)
    return page.redirect("inbox", approval.approval_id)


def _person(page: PageContext, fields: Mapping[str, str]) -> str:
    """Who submits a form.

    Without a login, on this machine, the operator names the person, as on the terminal with --by.
    """
    name = page.principal.name or ""
    return name if page.principal.logged_in else fields.get("by", "").strip() or name


async def _render_approval(page: PageContext, approval_id: str, *, problem: str | None, status: int) -> Response:
    approval, roles = await page.queries.approval(approval_id), page.state.runtime.settings.roles
    return page.render(
        "approval.html",
        status,
        approval=approval,
        open=approval.state == "pending",
        approver=_describe_approver(approval, roles),
        why_not=why_not_permitted(approval, page.principal.name or "", roles),
        problem=problem,
    )


def _describe_approver(approval: Approval, roles: Mapping[str, Collection[str]]) -> str:
    """Who may decide: the user who started the run, or a role with its members."""
    kind, _, role = approval.approver.partition(":")
    if kind != "role":
        return f"{approval.user}, who started the run"
    members = ", ".join(sorted(roles.get(role, ())))
    return f"{role} ({members})" if members else f"{role}; nobody has this role, see [roles] in handrail.toml"
