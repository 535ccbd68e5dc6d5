"""The API: run an agent, ask how a run stands, judge it, decide what waits."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response

from handrail.access.errors import NotAllowed
from handrail.kernel.errors import StoreError
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.store import decide
from handrail.runs.feedback import feedback
from handrail.runs.outcome import AwaitingApproval, Refused
from handrail.runs.runtime import use_runtime
from handrail.server import idempotency
from handrail.server.auth import Visitor, program
from handrail.server.idempotency import Answer
from handrail.server.params import Before, Id
from handrail.server.problems import MEDIA_TYPE, Problem
from handrail.server.queries import Reads
from handrail.server.state import Site, site_of

from .schemas import (
    ApprovalList,
    ApprovalSeen,
    DecisionGiven,
    FeedbackGiven,
    RunAnswer,
    RunAsked,
    RunStory,
    VerdictSeen,
    approval_seen,
    run_answer,
    run_story,
    verdict_seen,
)

router = APIRouter(prefix="/v1")

Runs = Annotated[Visitor, Depends(program("run"))]
Reader = Annotated[Visitor, Depends(program("read"))]
Decider = Annotated[Visitor, Depends(program("decide"))]


@router.post("/agents/{name}/runs", response_model=RunAnswer, responses={202: {"model": RunAnswer}, 429: {}})
async def run_agent(
    request: Request,
    name: Annotated[str, Path(max_length=200)],
    given: RunAsked,
    visitor: Runs,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Runs an agent for one user, and answers once it has ended, or waits for a person (202).

    With an `Idempotency-Key` the same request gets the same answer for a day, and one run. A refusal by a ceiling is a
    429 that is not worth repeating before `Retry-After`. An agent that failed or handed over to a person is a 200: that
    is how the run ended.
    """
    site = site_of(request)
    # Before anything is kept under the key: an agent that is not there is no answer to it.
    site.find_agent(name)
    request_id: str = request.state.request_id
    if idempotency_key is None:
        return _response(await _run(site, name, given, visitor, request_id))
    sent = {"agent": name, **given.model_dump()}
    asked = idempotency.asked(visitor.owner, idempotency_key, sent)
    [before] = await site.runtime.database.write(idempotency.begin(asked, site.runtime.clock.now()))
    if before is not None:
        return _response(before, {"idempotent-replayed": "true"})
    async with _under_way(site, asked):
        answer = await _run(site, name, given, visitor, request_id)
        await site.runtime.database.write(idempotency.finish(asked, answer))
    return _response(answer)


@router.get("/runs/{run_id}")
async def read_run(request: Request, run_id: Id, visitor: Reader) -> RunStory:
    """How a run stands, and how it came to that."""
    return run_story(await _reads(request, visitor).story(run_id))


@router.post("/runs/{run_id}/feedback", status_code=201)
async def judge_run(request: Request, run_id: Id, given: FeedbackGiven, visitor: Runs) -> VerdictSeen:
    """Says whether a run's outcome was right; the newest verdict counts, and may become an eval case."""
    run = (await _reads(request, visitor).story(run_id)).run
    with use_runtime(site_of(request).runtime):
        verdict = await feedback(
            run.run_id, right=given.right, by=given.by, should=given.should, note=given.note, tenant=run.tenant
        )
    return verdict_seen(verdict)


@router.get("/approvals")
async def read_approvals(
    request: Request,
    visitor: Reader,
    state: Annotated[State | Literal["all"], Query()] = "pending",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Before = None,
) -> ApprovalList:
    """What waits for a person, longest first."""
    which = None if state == "all" else state
    found = await _reads(request, visitor).approvals(state=which, limit=limit, before=before)
    more = found[-1].approval_id if len(found) == limit else None
    return ApprovalList(approvals=[approval_seen(each) for each in found], next=more)


@router.post("/approvals/{approval_id}/approve")
async def approve(request: Request, approval_id: Id, given: DecisionGiven, visitor: Decider) -> ApprovalSeen:
    """Lets an action happen, once; the worker carries its run on."""
    return approval_seen(await decided(request, visitor, approval_id, "approved", given.by, given.note))


@router.post("/approvals/{approval_id}/deny")
async def deny(request: Request, approval_id: Id, given: DecisionGiven, visitor: Decider) -> ApprovalSeen:
    """Keeps an action from happening; the worker carries its run on."""
    return approval_seen(await decided(request, visitor, approval_id, "denied", given.by, given.note))


async def decided(
    request: Request,
    visitor: Visitor,
    approval_id: str,
    verdict: Literal["approved", "denied"],
    by: str,
    note: str | None,
) -> Approval:
    """Takes the decision of `by`. Raises NotFound for an approval that the visitor does not see, as `decide` does."""
    runtime = site_of(request).runtime
    found = await _reads(request, visitor).approval(approval_id)
    op = decide(found.approval_id, verdict, by, runtime.settings.roles, note, runtime.clock.now())
    [approval] = await runtime.database.write(op)
    assert isinstance(approval, Approval)
    return approval


def _reads(request: Request, visitor: Visitor) -> Reads:
    return Reads(site_of(request).runtime, visitor.tenant)


async def _run(site: Site, name: str, given: RunAsked, visitor: Visitor, request_id: str) -> Answer:
    if visitor.tenant not in (None, given.tenant or visitor.tenant):
        raise NotAllowed("tenant: the key is another tenant's; leave the field out")
    tenant = given.tenant or visitor.tenant or "default"
    with use_runtime(site.runtime):
        agent = site.find_agent(name)
        outcome = await agent.run(given.input, user=given.user, tenant=tenant, conversation_id=given.conversation_id)
    if isinstance(outcome, Refused):
        return _refusal(site, outcome, request_id)
    status = 202 if isinstance(outcome, AwaitingApproval) else 200
    return Answer(status=status, body=run_answer(outcome).model_dump(mode="json"))


def _refusal(site: Site, outcome: Refused, request_id: str) -> Answer:
    refusal = outcome.refusal
    resets = refusal.resets_at
    wait = None if resets is None else math.ceil((resets - site.runtime.clock.now()).total_seconds())
    more: Mapping[str, Any] = {
        "run_id": outcome.facts.run_id,
        "message": outcome.message,
        "scope": refusal.scope,
        "unit": refusal.unit,
        "limit": refusal.limit,
        "spent": refusal.spent,
        "held": refusal.held,
        "asked": refusal.asked,
        "fits": refusal.fits,
        "resets_at": None if resets is None else resets.isoformat(),
        "retry_after": None if wait is None else max(wait, 0),
    }
    problem = Problem(status=429, code="refused", detail=str(refusal), request_id=request_id, more=more)
    return Answer(status=429, body=problem.body())


def _response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if answer.status != 429:
        return JSONResponse(answer.body, answer.status, headers)
    # The providers' own clients try a plain 429 again at once, and some sleep for Retry-After; this header stops both.
    headers["x-should-retry"] = "false"
    if answer.body["retry_after"] is not None:
        headers["retry-after"] = str(answer.body["retry_after"])
    return Response(json.dumps(answer.body), 429, headers, MEDIA_TYPE)


@asynccontextmanager
async def _under_way(site: Site, asked: idempotency.Asked) -> AsyncIterator[None]:
    """Keeps the request's lease while the block runs; gives its key back where the block raises."""
    runtime = site.runtime

    async def renew() -> None:
        while True:
            await runtime.clock.sleep(idempotency.LEASE.total_seconds() / 3)
            with suppress(StoreError):
                await runtime.database.write(idempotency.renew(asked, runtime.clock.now()))

    renewal = asyncio.create_task(renew())
    try:
        yield
    except Exception:
        await runtime.database.write(idempotency.forget(asked))
        raise
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await renewal
