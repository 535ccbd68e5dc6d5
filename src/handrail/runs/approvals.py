"""Irreversible tool calls: proposed, held back until people decide, then executed at most once.

The approvals table is the only authority. Any caller can tell Pydantic AI that a call is approved, so the table is
checked before the call is executed.

An execution is recorded in commits of its own. `begin` commits before the tool runs: if the process dies then, the
table shows it, and the action is not executed again unless it is idempotent. `complete` or `fail` commits right after
the tool, without waiting for the run's next commit, which may be a whole model request away.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.messages import ToolCallPart

from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.approvals.model import DECISION_PERIOD, AlreadyExecuted, Approval, Execute, UnknownEffect, digest
from handrail.review.approvals.store import begin, complete, fail
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .errors import ActionUncertain
from .faults import TOOL_CONTROL_FLOW, is_bug
from .record import RunRecord

_executing: ContextVar[Approval | None] = ContextVar("handrail_executing", default=None)

DENIED = "A colleague decided against this action. Do not try it again; tell the user what can be done instead."
"""What the model reads in place of the result of a denied call."""


def idempotency_key() -> str:
    """A key for the approved action that is being executed, the same at every attempt.

    A tool that passes it to a system that acts only once for each key may be declared `idempotent`: such an action is
    tried again if its process died while executing it.

    Returns:
        The id of the approval.

    Raises:
        BadInput: No approved action is being executed; call this inside an irreversible tool.
    """
    approval = _executing.get()
    if approval is None:
        raise BadInput(
            "idempotency_key: no approved action is being executed here; call it inside an irreversible tool"
        )
    return approval.approval_id


async def execute_approved(
    record: RunRecord,
    approval: Approval,
    call: ToolCallPart,
    execute: Callable[[], Awaitable[Any]],
    span: LiveSpan,
) -> Any:
    """Executes an approved call at most once and returns its result, or the stored result if it was executed before.

    Args:
        record: The run's record.
        approval: The approval of the call.
        call: The call to execute.
        execute: Executes the tool.
        span: The span around the call.

    Raises:
        ActionUncertain: The action must not be executed, or failed midway; a person has to check.
        Exception: What the tool raises on purpose (`ModelRetry` and the like), and programming errors in it.
    """
    span.set({semconv.APPROVAL_ID: approval.approval_id, semconv.DECIDED_BY: approval.decided_by})
    database, now = record.runtime.database, record.runtime.clock.now()
    # The digest is of this call's arguments: an approval is only for exactly those that people saw.
    [begin_result] = await database.write(begin(approval.approval_id, digest(call.tool_name, call.args_as_dict()), now))
    match begin_result:
        case Execute():
            span.set({semconv.APPROVAL: "approved"})
        case AlreadyExecuted(result=result):
            span.set({semconv.APPROVAL: "executed before"})
            return result
        case UnknownEffect():
            raise ActionUncertain(approval, "its process died while it was being executed")
        case _:
            raise ActionUncertain(approval, f"not executed: it is {begin_result.state}, or its arguments were changed")
    token = _executing.set(approval)
    record.executing.add(approval.approval_id)
    try:
        result = await execute()
    except Exception as error:
        await database.write(fail(approval.approval_id, f"{type(error).__name__}: {error}"))
        if isinstance(error, TOOL_CONTROL_FLOW) or is_bug(error):
            # Control flow means that the tool did not act; a bug has to reach its author.
            raise
        raise ActionUncertain(approval, f"{type(error).__name__}: {error}") from error
    finally:
        record.executing.discard(approval.approval_id)
        _executing.reset(token)
    await database.write(complete(approval.approval_id, result))
    return result


def new_approvals(record: RunRecord, deferred: DeferredToolRequests) -> tuple[Approval, ...]:
    """The pending approvals of a run that stopped before irreversible calls, all of its next round."""
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
            approver=deferred.metadata.get(call.tool_call_id, {}).get("approver", "requester"),
            idempotent=deferred.metadata.get(call.tool_call_id, {}).get("idempotent", False),
            state="pending",
            proposed_at=now,
            expires_at=now + DECISION_PERIOD,
            decided_by=None,
            decided_at=None,
            note=None,
        )
        for call in deferred.approvals
    )


def deferred_results(approvals: Sequence[Approval]) -> DeferredToolResults:
    """The decisions in Pydantic AI's form; `execute_approved` still checks the table before it executes anything."""
    return DeferredToolResults(
        approvals={
            approval.call_id: (
                ToolDenied(" ".join([DENIED, approval.note or ""])) if approval.state == "denied" else ToolApproved()
            )
            for approval in approvals
        }
    )
