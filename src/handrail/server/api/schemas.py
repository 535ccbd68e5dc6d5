"""The API's documents: what is sent and what comes back, with an example each."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from pydantic_core import to_jsonable_python

from handrail.kernel.money import NanoUsd, show_usd
from handrail.review.approvals.model import Approval, State
from handrail.review.feedback import Verdict
from handrail.runs.outcome import AwaitingApproval, Escalated, Failed, FellBack, Outcome, Path, Refused
from handrail.server.queries import Story

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Note = Annotated[str, StringConstraints(max_length=10_000)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunAsked(_Sent):
    """A question for an agent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "Where is my order 1042?", "user": "u-17", "tenant": "acme"}]}
    )

    input: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
    user: Name
    tenant: Name | None = Field(None, description="The user's tenant. A key that is of one tenant fills it in.")
    conversation_id: Name | None = Field(None, description="Goes on with this conversation of the tenant.")


class FeedbackGiven(_Sent):
    """A person's verdict on a run; the newest counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"right": False, "should": {"refund": True}, "by": "ann", "note": "paid twice"}]
        }
    )

    right: bool
    by: Name
    should: dict[str, JsonValue] | None = Field(None, description="Fields of the right outcome.")
    note: Note | None = None


class DecisionGiven(_Sent):
    """A person's decision; `by` has to be somebody who may decide."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "ann", "note": "checked with the bank"}]})

    by: Name
    note: Note | None = None


class ApprovalSeen(BaseModel):
    """An irreversible action that waits, or waited, for a person."""

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


class FaultSeen(BaseModel):
    """Why an agent could not answer."""

    code: str
    detail: str


class RunAnswer(BaseModel):
    """How a run stands. `message` is fit for the user; `output` is there where the agent or its fallback answered."""

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
    fault: FaultSeen | None
    reason: str | None
    approvals: list[ApprovalSeen]
    seconds: float
    cost_nano_usd: int
    cost: str
    requests: int
    tools: list[str]


class OutcomeSeen(BaseModel):
    """One of a run's outcomes; `body` holds the fields of its type."""

    type: str
    path: Path | None
    at: datetime
    body: dict[str, Any]


class VerdictSeen(BaseModel):
    """What a person said of a run."""

    verdict_id: str
    run_id: str
    right: bool
    should: dict[str, Any] | None
    note: str | None
    by: str
    at: datetime


class RunStory(BaseModel):
    """A run as it stands, its outcomes first to last, its approvals and its verdicts, the newest verdict first."""

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
    outcomes: list[OutcomeSeen]
    approvals: list[ApprovalSeen]
    verdicts: list[VerdictSeen]


class ApprovalList(BaseModel):
    """A page of approvals; `next` goes into `before` for the page after it, None at the end."""

    approvals: list[ApprovalSeen]
    next: str | None


def approval_seen(found: Approval) -> ApprovalSeen:
    """An approval without what is the machine's own."""
    return ApprovalSeen(
        approval_id=found.approval_id,
        run_id=found.run_id,
        tenant=found.tenant,
        user=found.user,
        agent=found.agent,
        tool=found.tool,
        arguments=_plain(found.arguments),
        approver=found.approver,
        state=found.state,
        proposed_at=found.proposed_at,
        expires_at=found.expires_at,
        decided_by=found.decided_by,
        decided_at=found.decided_at,
        note=found.note,
    )


def verdict_seen(found: Verdict) -> VerdictSeen:
    """A verdict as the API tells it."""
    return VerdictSeen(
        verdict_id=found.verdict_id,
        run_id=found.run_id,
        right=found.right,
        should=None if found.should is None else _plain(found.should),
        note=found.note,
        by=found.by,
        at=found.at,
    )


def run_answer(outcome: Outcome[Any]) -> RunAnswer:
    """An outcome that is no refusal, as an answer."""
    assert not isinstance(outcome, Refused)
    facts, fault = outcome.facts, outcome.fault if isinstance(outcome, FellBack | Failed) else None
    return RunAnswer(
        run_id=facts.run_id,
        trace_id=facts.trace_id,
        type=outcome.type,
        path=outcome.path,
        message=outcome.message,
        output=_plain(getattr(outcome, "output", None)),
        fault=fault and FaultSeen(code=fault.code, detail=fault.detail),
        reason=outcome.reason if isinstance(outcome, Escalated) else None,
        approvals=[approval_seen(each) for each in outcome.approvals] if isinstance(outcome, AwaitingApproval) else [],
        seconds=facts.duration.total_seconds(),
        cost_nano_usd=facts.cost,
        cost=show_usd(NanoUsd(facts.cost)),
        requests=facts.requests,
        tools=list(facts.tools),
    )


def run_story(story: Story) -> RunStory:
    """A run's story as the API tells it."""
    run = story.run
    outcomes = [
        OutcomeSeen(type=each.type, path=each.path, at=each.at, body=_plain(each.body)) for each in story.outcomes
    ]
    return RunStory(
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
        input=_plain(story.input),
        outcomes=outcomes,
        approvals=[approval_seen(each) for each in story.approvals],
        verdicts=[verdict_seen(each) for each in story.verdicts],
    )


def _plain(found: Any) -> Any:
    """As JSON has it, objects that it does not know by their text, halves of characters as question marks."""
    return _whole(to_jsonable_python(found, bytes_mode="base64", fallback=str, inf_nan_mode="null"))


def _whole(found: Any) -> Any:
    if isinstance(found, str):
        return found.encode("utf-8", "replace").decode()
    if isinstance(found, Mapping):
        return {_whole(name): _whole(value) for name, value in found.items()}
    return [_whole(value) for value in found] if isinstance(found, list) else found
