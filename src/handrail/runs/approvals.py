"""An irreversible call: proposed and held back until people decide, then executed at most once.

The table of approvals is the only authority: whoever else told Pydantic AI that a call is approved was not asked here.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.messages import ToolCallPart

from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.approvals.model import EXPIRES, AlreadyExecuted, Approval, Execute, Unknown, digest
from handrail.review.approvals.store import begin, complete, fail
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .errors import ActionUncertain
from .faults import TALK, is_bug
from .record import Record

_executing: ContextVar[Approval | None] = ContextVar("handrail_executing", default=None)

DENIED = "A colleague decided against this action. Do not try it again; tell the user what can be done instead."


def idempotency_key() -> str:
    """Inside an approved action: a key that stays the same however often this action is tried.

    A tool that passes it on to a system which does the same key's work once may be declared `idempotent`, and is then
    tried again after a crash. Raises BadInput anywhere else.
    """
    approval = _executing.get()
    if approval is None:
        raise BadInput("idempotency_key: no approved action is executed here; call it inside an irreversible tool")
    return approval.approval_id


async def approved(
    record: Record,
    approval: Approval,
    call: ToolCallPart,
    execute: Callable[[], Awaitable[Any]],
    live: LiveSpan,
) -> Any:
    """The result of an approved call, executed now or before. Raises ActionUncertain, and what the tool says itself."""
    live.set({semconv.APPROVAL_ID: approval.approval_id, semconv.DECIDED_BY: approval.decided_by})
    database, now = record.runtime.database, record.runtime.clock.now()
    [begun] = await database.write(begin(approval.approval_id, digest(call.tool_name, call.args_as_dict()), now))
    match begun:
        case Execute():
            live.set({semconv.APPROVAL: "approved"})
        case AlreadyExecuted(result=result):
            live.set({semconv.APPROVAL: "executed before"})
            return result
        case Unknown():
            raise ActionUncertain(approval, "its process died while it was being executed")
        case _:
            raise ActionUncertain(approval, f"not executed: it is {begun.state}, or its arguments were changed")
    token = _executing.set(approval)
    record.executing.add(approval.approval_id)
    try:
        result = await execute()
    except Exception as error:
        await database.write(fail(approval.approval_id, f"{type(error).__name__}: {error}"))
        if isinstance(error, TALK) or is_bug(error):
            # What a tool says to the model on purpose it says instead of acting; a bug is its author's to see.
            raise
        raise ActionUncertain(approval, f"{type(error).__name__}: {error}") from error
    finally:
        record.executing.discard(approval.approval_id)
        _executing.reset(token)
    await database.write(complete(approval.approval_id, result))
    return result


def proposals(record: Record, asked: DeferredToolRequests) -> tuple[Approval, ...]:
    """The approvals that a run which stopped before its irreversible calls asks for, all of one round."""
    request, now = record.request, record.runtime.clock.now()
    return tuple(
        Approval(
            approval_id=new_id("appr", now),
            run_id=request.run_id,
            round=record.round + 1,
            tenant=request.tenant,
            user=request.user,
            agent=request.agent,
            tool=call.tool_name,
            call_id=call.tool_call_id,
            arguments=call.args_as_dict(),
            digest=digest(call.tool_name, call.args_as_dict()),
            approver=asked.metadata.get(call.tool_call_id, {}).get("approver", "requester"),
            idempotent=asked.metadata.get(call.tool_call_id, {}).get("idempotent", False),
            state="pending",
            proposed_at=now,
            expires_at=now + EXPIRES,
            decided_by=None,
            decided_at=None,
            note=None,
        )
        for call in asked.approvals
    )


def decisions(approvals: Sequence[Approval]) -> DeferredToolResults:
    """What people decided, as Pydantic AI takes it; `approved` still asks the table before anything is executed."""
    return DeferredToolResults(
        approvals={
            each.call_id: ToolDenied(" ".join([DENIED, each.note or ""])) if each.state == "denied" else ToolApproved()
            for each in approvals
        }
    )
