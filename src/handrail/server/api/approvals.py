"""The API's approvals: list them, approve, deny, settle an uncertain action."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from handrail.review.approvals.model import StateFilter
from handrail.review.approvals.store import decide, settle_uncertain
from handrail.server.auth import Principal
from handrail.server.params import BeforeQuery, IdPath
from handrail.server.state import app_state

from .dependencies import DecidePrincipal, ReadPrincipal, queries_for
from .schemas import (
    ApprovalListResponse,
    ApprovalResponse,
    DecisionRequestBody,
    SettlementRequestBody,
    approval_response,
)

router = APIRouter(prefix="/v1")

_STATES = (
    "`open` are those that need a person: `uncertain` ones, whose action may have happened, then `pending` ones. "
    "An approval that nobody decided in time is `expired`."
)


@router.get("/approvals")
async def list_approvals(
    request: Request,
    principal: ReadPrincipal,
    state: Annotated[StateFilter | Literal["all"], Query(description=_STATES)] = "open",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: BeforeQuery = None,
) -> ApprovalListResponse:
    """Lists approvals, those that have waited longest first; by default those that need a person.

    Among these, uncertain actions come first: they are approved, and may have happened.
    """
    approvals = await queries_for(request, principal).approvals(
        state=None if state == "all" else state, limit=limit, before=before
    )
    following = approvals[-1].approval_id if len(approvals) == limit else None
    return ApprovalListResponse(approvals=[approval_response(approval) for approval in approvals], next=following)


@router.post("/approvals/{approval_id}/approve")
async def approve(
    request: Request, approval_id: IdPath, body: DecisionRequestBody, principal: DecidePrincipal
) -> ApprovalResponse:
    """Approves an action, which is then executed once; the worker resumes its run."""
    return await _decide(request, principal, approval_id, "approved", body)


@router.post("/approvals/{approval_id}/deny")
async def deny(
    request: Request, approval_id: IdPath, body: DecisionRequestBody, principal: DecidePrincipal
) -> ApprovalResponse:
    """Denies an action; the worker resumes its run without it."""
    return await _decide(request, principal, approval_id, "denied", body)


@router.post("/approvals/{approval_id}/settlement")
async def settle(
    request: Request, approval_id: IdPath, body: SettlementRequestBody, principal: DecidePrincipal
) -> ApprovalResponse:
    """Says whether an uncertain action happened. If it did not, it is executed again; the worker resumes the run.

    An action is uncertain (`failed` or `unknown_after_crash`) if its tool raised or its process died.
    """
    runtime = app_state(request).runtime
    # Looked up as the caller sees it, so that an approval of another tenant is not found.
    approval = await queries_for(request, principal).approval(approval_id)
    roles, now = runtime.settings.roles, runtime.clock.now()
    operation = settle_uncertain(approval.approval_id, body.happened, body.by, roles, body.note, now)
    [settled] = await runtime.database.write(operation)
    return approval_response(settled)


async def _decide(
    request: Request,
    principal: Principal,
    approval_id: str,
    decision: Literal["approved", "denied"],
    body: DecisionRequestBody,
) -> ApprovalResponse:
    runtime = app_state(request).runtime
    # Looked up as the caller sees it, so that an approval of another tenant is not found.
    approval = await queries_for(request, principal).approval(approval_id)
    operation = decide(approval.approval_id, decision, body.by, runtime.settings.roles, body.note, runtime.clock.now())
    [decided] = await runtime.database.write(operation)
    return approval_response(decided)
