"""The API's runs: run an agent, read a run."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import JSONResponse, Response

from handrail.kernel.errors import StoreError
from handrail.runs.outcome import AwaitingApproval, Refused
from handrail.runs.runtime import use_runtime
from handrail.server import idempotency
from handrail.server.auth import Principal
from handrail.server.idempotency import IdempotentRequest, StoredResponse
from handrail.server.params import IdPath
from handrail.server.problems import MEDIA_TYPE, Problem
from handrail.server.state import AppState, app_state
from handrail.server.tenancy import run_tenant

from .dependencies import ReadPrincipal, RunPrincipal, queries_for
from .schemas import RunDetailResponse, RunRequestBody, RunResponse, run_detail_response, run_response

router = APIRouter(prefix="/v1")


@router.post("/agents/{name}/runs", response_model=RunResponse, responses={202: {"model": RunResponse}, 429: {}})
async def run_agent(
    request: Request,
    name: Annotated[str, Path(max_length=200)],
    body: RunRequestBody,
    principal: RunPrincipal,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Runs an agent for one user. Responds once the run has ended, or with a 202 once it waits for an approval.

    Repeating a request with the same `Idempotency-Key` within 24 hours returns the first response and does not run the
    agent again. A run that a ceiling refuses is a 429; there is no point in retrying before `Retry-After`. A run that
    failed or was handed to a person is a 200, since that is how the run ended.
    """
    state = app_state(request)
    # Before the key is claimed: that an agent does not exist is not a response to keep for a day.
    state.find_agent(name)
    request_id: str = request.state.request_id
    if idempotency_key is None:
        return _to_http(await _run(state, name, body, principal, request_id))
    payload = {"agent": name, **body.model_dump()}
    keyed = idempotency.idempotent_request(principal.owner, idempotency_key, payload)
    [earlier] = await state.runtime.database.write(idempotency.claim_key(keyed, state.runtime.clock.now()))
    if earlier is not None:
        return _to_http(earlier, {"idempotent-replayed": "true"})
    async with _key_lease(state, keyed):
        response = await _run(state, name, body, principal, request_id)
        await state.runtime.database.write(idempotency.store_response(keyed, response))
    return _to_http(response)


@router.get("/runs/{run_id}")
async def read_run(request: Request, run_id: IdPath, principal: ReadPrincipal) -> RunDetailResponse:
    """Returns a run with its outcomes, approvals and feedback."""
    return run_detail_response(await queries_for(request, principal).run(run_id))


async def _run(
    state: AppState, name: str, body: RunRequestBody, principal: Principal, request_id: str
) -> StoredResponse:
    tenant = run_tenant(principal.tenant, body.tenant)
    with use_runtime(state.runtime):
        agent = state.find_agent(name)
        outcome = await agent.run(body.input, user=body.user, tenant=tenant, conversation_id=body.conversation_id)
    if isinstance(outcome, Refused):
        return _refusal(state, outcome, request_id)
    status = 202 if isinstance(outcome, AwaitingApproval) else 200
    return StoredResponse(status=status, body=run_response(outcome).model_dump(mode="json"))


def _refusal(state: AppState, outcome: Refused, request_id: str) -> StoredResponse:
    refusal = outcome.refusal
    resets_at = refusal.resets_at
    wait = None if resets_at is None else math.ceil((resets_at - state.runtime.clock.now()).total_seconds())
    extensions: Mapping[str, Any] = {
        "run_id": outcome.facts.run_id,
        "message": outcome.message,
        "scope": refusal.scope,
        "unit": refusal.unit,
        "limit": refusal.limit,
        "spent": refusal.spent,
        "held": refusal.held,
        "requested": refusal.requested,
        "fits": refusal.fits,
        "unbounded": list(refusal.unbounded),
        "resets_at": None if resets_at is None else resets_at.isoformat(),
        "retry_after": None if wait is None else max(wait, 0),
    }
    problem = Problem(status=429, code="refused", detail=str(refusal), request_id=request_id, extensions=extensions)
    return StoredResponse(status=429, body=problem.body())


def _to_http(response: StoredResponse, headers: Mapping[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if response.status != 429:
        return JSONResponse(response.body, response.status, headers)
    # The providers' client libraries retry a plain 429 at once, or sleep for Retry-After; this header stops both.
    headers["x-should-retry"] = "false"
    if response.body["retry_after"] is not None:
        headers["retry-after"] = str(response.body["retry_after"])
    return Response(json.dumps(response.body), 429, headers, MEDIA_TYPE)


@asynccontextmanager
async def _key_lease(state: AppState, keyed: IdempotentRequest) -> AsyncIterator[None]:
    """Renews the lease on a claimed key while the block runs, and releases the key if the block raises."""
    runtime = state.runtime

    async def renew() -> None:
        while True:
            await runtime.clock.sleep(idempotency.LEASE.total_seconds() / 3)
            with suppress(StoreError):
                await runtime.database.write(idempotency.renew_request_lease(keyed, runtime.clock.now()))

    renewal = asyncio.create_task(renew())
    try:
        yield
    except Exception:
        await runtime.database.write(idempotency.release_key(keyed))
        raise
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await renewal
