"""The request and response bodies of the API, with examples."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StringConstraints
from pydantic_core import to_jsonable_python

from handrail.kernel.money import NanoUsd, format_usd
from handrail.review.approvals.model import Approval, State
from handrail.review.feedback import Feedback
from handrail.runs.outcome import AwaitingApproval, Escalated, Failed, FellBack, Outcome, Path, Refused
from handrail.server.queries import RunDetail

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Note = Annotated[str, StringConstraints(max_length=10_000)]


class _RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunRequestBody(_RequestBody):
    """An input for an agent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "Where is my order 1042?", "user": "u-17", "tenant": "acme"}]}
    )

    input: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
    user: Name
    tenant: Name | None = Field(None, description="The user's tenant. A key of one tenant implies it.")
    conversation_id: Name | None = Field(None, description="Continues this conversation of the tenant.")


class FeedbackRequestBody(_RequestBody):
    """Whether a run's outcome was right, in a person's judgement; the newest feedback counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"right": False, "expected": {"refund": True}, "by": "ann", "note": "paid twice"}]
        }
    )

    right: bool
    by: Name
    expected: dict[str, JsonValue] | None = Field(
        None, description="Fields of the right outcome, with their right values."
    )
    note: Note | None = None


class DecisionRequestBody(_RequestBody):
    """A decision; `by` has to be a person who may decide."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "ann", "note": "checked with the bank"}]})

    by: Name
    note: Note | None = None


class SettlementRequestBody(_RequestBody):
    """Whether an uncertain action happened; `by` has to be a person who may decide the approval."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"happened": False, "by": "ann", "note": "the bank has no such refund"}]}
    )

    happened: StrictBool = Field(description="If it did not happen, it is executed again.")
    by: Name
    note: Note | None = None


class ApprovalResponse(BaseModel):
    """An irreversible action that waits, or waited, for a person's decision.

    In the states `failed` and `unknown_after_crash` it is uncertain whether the action happened, until a person settles
    it. `happened`, `settled_by` and `settled_at` are what the last settlement said; without `settled_by` it was the
    tool's `reconcile`. `reason` is why an approved action was not executed, or the note of the settlement.
    """

    approval_id: str
    run_id: str
    tenant: str
    user: str
    agent: str
    tool: str
    arguments: dict[str, Any]
    approver: str
    state: State
    proposed_at: datetime
    expires_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    note: str | None
    attempts: int
    happened: bool | None
    settled_by: str | None
    settled_at: datetime | None
    reason: str | None


class FaultResponse(BaseModel):
    """Why an agent failed to answer."""

    code: str
    detail: str


class RunResponse(BaseModel):
    """How a run ended, or that it waits for an approval.

    `message` can be shown to the user. `output` is the answer of the agent or of its fallback.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run_id": "run_01k8w5c3f9x2v7m4n6p8q0r1s3",
                    "trace_id": "0af7651916cd43dd8448eb211c80319c",
                    "type": "answered",
                    "path": "happy",
                    "message": "Your parcel left our warehouse on Monday.",
                    "output": "Your parcel left our warehouse on Monday.",
                    "fault": None,
                    "reason": None,
                    "approvals": [],
                    "seconds": 2.1,
                    "cost_nano_usd": 1_250_000,
                    "cost": "$0.00125",
                    "requests": 2,
                    "tools": ["find_order"],
                }
            ]
        }
    )

    run_id: str
    trace_id: str
    type: Literal["answered", "fell_back", "escalated", "awaiting_approval", "failed"]
    path: Path | None
    message: str
    output: Any
    fault: FaultResponse | None
    reason: str | None
    approvals: list[ApprovalResponse]
    seconds: float
    cost_nano_usd: int
    cost: str
    requests: int
    tools: list[str]


class OutcomeResponse(BaseModel):
    """One of a run's outcomes; `body` has the fields of its type."""

    type: str
    path: Path | None
    at: datetime
    body: dict[str, Any]


class FeedbackResponse(BaseModel):
    """A person's feedback on a run."""

    feedback_id: str
    run_id: str
    right: bool
    expected: dict[str, Any] | None
    note: str | None
    by: str
    at: datetime


class RunDetailResponse(BaseModel):
    """A run with its outcomes in order, its approvals, and its feedback, newest first."""

    run_id: str
    agent: str
    tenant: str
    user: str
    conversation_id: str
    trace_id: str
    status: str
    path: Path | None
    fault: str | None
    model: str | None
    started_at: datetime
    ended_at: datetime | None
    requests: int
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    input: Any
    outcomes: list[OutcomeResponse]
    approvals: list[ApprovalResponse]
    feedback: list[FeedbackResponse]


class ApprovalListResponse(BaseModel):
    """A page of approvals. For the next page pass `next` as `before`; it is null on the last page."""

    approvals: list[ApprovalResponse]
    next: str | None


def approval_response(approval: Approval) -> ApprovalResponse:
    """An approval, without its internal fields."""
    return ApprovalResponse(
        approval_id=approval.approval_id,
        run_id=approval.run_id,
        tenant=approval.tenant,
        user=approval.user,
        agent=approval.agent,
        tool=approval.tool,
        arguments=_to_json(approval.arguments),
        approver=approval.approver,
        state=approval.state,
        proposed_at=approval.proposed_at,
        expires_at=approval.expires_at,
        decided_by=approval.decided_by,
        decided_at=approval.decided_at,
        note=approval.note,
        attempts=approval.attempts,
        happened=approval.happened,
        settled_by=approval.settled_by,
        settled_at=approval.settled_at,
        reason=approval.reason,
    )


def feedback_response(feedback: Feedback) -> FeedbackResponse:
    """Feedback, without its internal fields."""
    return FeedbackResponse(
        feedback_id=feedback.feedback_id,
        run_id=feedback.run_id,
        right=feedback.right,
        expected=None if feedback.expected is None else _to_json(feedback.expected),
        note=feedback.note,
        by=feedback.by,
        at=feedback.at,
    )


def run_response(outcome: Outcome[Any]) -> RunResponse:
    """The response for any outcome but a refusal, which is a problem."""
    assert not isinstance(outcome, Refused)
    facts, fault = outcome.facts, outcome.fault if isinstance(outcome, FellBack | Failed) else None
    approvals = outcome.approvals if isinstance(outcome, AwaitingApproval) else ()
    return RunResponse(
        run_id=facts.run_id,
        trace_id=facts.trace_id,
        type=outcome.type,
        path=outcome.path,
        message=outcome.message,
        output=_to_json(getattr(outcome, "output", None)),
        fault=fault and FaultResponse(code=fault.code, detail=fault.detail),
        reason=outcome.reason if isinstance(outcome, Escalated) else None,
        approvals=[approval_response(approval) for approval in approvals],
        seconds=facts.duration.total_seconds(),
        cost_nano_usd=facts.cost,
        cost=format_usd(NanoUsd(facts.cost)),
        requests=facts.requests,
        tools=list(facts.tools),
    )


def run_detail_response(detail: RunDetail) -> RunDetailResponse:
    """A run with all that is stored of it."""
    run = detail.run
    outcomes = [
        OutcomeResponse(type=outcome.type, path=outcome.path, at=outcome.at, body=_to_json(outcome.body))
        for outcome in detail.outcomes
    ]
    return RunDetailResponse(
        run_id=run.run_id,
        agent=run.agent,
        tenant=run.tenant,
        user=run.user,
        conversation_id=run.conversation_id,
        trace_id=run.trace_id,
        status=run.status,
        path=run.path,
        fault=run.fault,
        model=run.model,
        started_at=run.started_at,
        ended_at=run.ended_at,
        requests=run.requests,
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        cost_nano_usd=run.cost,
        input=_to_json(detail.input),
        outcomes=outcomes,
        approvals=[approval_response(approval) for approval in detail.approvals],
        feedback=[feedback_response(feedback) for feedback in detail.feedback],
    )


def _to_json(value: Any) -> Any:
    """A JSON value: objects without a JSON form become their text, lone surrogates question marks."""
    return _replace_surrogates(to_jsonable_python(value, bytes_mode="base64", fallback=str, inf_nan_mode="null"))


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_replace_surrogates(name): _replace_surrogates(item) for name, item in value.items()}
    return [_replace_surrogates(item) for item in value] if isinstance(value, list) else value
