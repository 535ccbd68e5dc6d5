"""The API's approvals: list them, approve, deny."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from handrail.review.approvals.model import State
from handrail.review.approvals.store import decide
from handrail.server.auth import Principal
from handrail.server.params import BeforeQuery, IdPath
from handrail.server.state import app_state

from .dependencies import DecidePrincipal, ReadPrincipal, queries_for
from .schemas import ApprovalListResponse, ApprovalResponse, DecisionRequestBody, approval_response

router = APIRouter(prefix="/v1")


@router.get("/approvals")
async def list_approvals(
    request: Request,
    principal: ReadPrincipal,
    state: Annotated[State | Literal["all"], Query()] = "pending",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: BeforeQuery = None,
) -> ApprovalListResponse:
    """Lists approvals, those that have waited longest first."""
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
