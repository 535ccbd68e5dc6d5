"""Irreversible tool calls: proposed, held back until people decide, then executed at most once.

The approvals table is the only authority. Any caller can tell Pydantic AI that a call is approved, so the table is
checked before the call is executed.

An execution is recorded in commits of its own. `begin` commits before the tool runs: if the process dies then, the
table shows it, and the action is not executed again unless it is idempotent. `complete` or `fail` commits right after
the tool, without waiting for the run's next commit, which may be a whole model request away.

The approved actions of a run are executed one after another, so that one that fails does not interrupt another.
"""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.exceptions import ApprovalRequired

from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.model import (
    DECISION_PERIOD,
    AlreadyExecuted,
    Approval,
    BeginResult,
    CallDiffers,
    Execute,
    NotApproved,
    UnknownEffect,
)
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import begin, complete, decline, fail, reconcile_uncertain, withdraw_unexecuted
from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .errors import ActionUncertain, ResumeFailed
from .faults import TOOL_CONTROL_FLOW, is_bug
from .loop_guard import Looping
from .proposed_call import ProposedCall
from .record import RunRecord
from .tool_results import storable
from .tools import approver_for, checks_of, is_idempotent

_NO_TOOLS = frozenset({"pydantic_ai", "handrail", "mcp", "fastmcp"})
_HOOKS = frozenset({"after_tool_execute", "on_tool_execute_error", "wrap_tool_execute"})
_executing: ContextVar[Approval | None] = ContextVar("handrail_executing", default=None)

DENIED = "A colleague decided against this action. Do not try it again; tell the user what can be done instead."
"""What the model reads in place of the result of a denied call."""
NOT_EXECUTED = "This action was approved, but was not carried out: {}. Tell the user what can be done instead."
"""What the model reads in place of the result of an approved call that was withdrawn; with the reason."""
RESULT_UNKNOWN = "This action was carried out, but what it returned is not known."
"""What the model reads in place of the result of an action that was found to have happened."""
_CHANGED = "the call, or its tool, has changed since it was approved; it was proposed again"


def idempotency_key() -> str:
    """A key for the approved action that is being executed, the same at every attempt.

    A tool that passes it to a system that acts only once for each key may be declared `idempotent`: such an action is
    tried again if its process died while executing it. A tool's `reconcile` is given the same key.

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


@dataclass(frozen=True, kw_only=True)
class ApprovedCall:
    """A call that Pydantic AI resumes, with the approval that people gave for it."""

    record: RunRecord
    approval: Approval
    call: ProposedCall
    execute: Callable[[], Awaitable[Any]]
    """Executes the tool."""
    span: LiveSpan
    """The span around the call."""


async def execute_approved(approved: ApprovedCall) -> Any:
    """Executes an approved call at most once and returns its result, or the stored result if it was executed before.

    Args:
        approved: The call and its approval.

    Raises:
        ActionUncertain: The action failed midway or was interrupted; a person has to check.
        ApprovalRequired: The call is not the one that people approved; they are asked again.
        Looping: The run made the same call too often; this one was not executed.
        ResumeFailed: It cannot be told now whether the action is still valid; nothing was executed.
        Exception: What the tool raises on purpose (`ModelRetry` and the like), and programming errors in it.
    """
    approval, span = approved.approval, approved.span
    span.set({semconv.APPROVAL_ID: approval.approval_id, semconv.DECIDED_BY: approval.decided_by})
    async with approved.record.loop.one_action_at_a_time:
        match await _begin(approved):
            case Execute():
                span.set({semconv.APPROVAL: "approved"})
                return await _execute(approved)
            case AlreadyExecuted(result=result, is_known=is_known):
                span.set({semconv.APPROVAL: "executed before"})
                return result if is_known else RESULT_UNKNOWN
            case CallDiffers():
                span.set({semconv.APPROVAL: "changed"})
                return await _propose_again(approved)
            case NotApproved(state=state, reason=reason):
                span.set({semconv.APPROVAL: state})
                return ToolDenied(NOT_EXECUTED.format(reason or f"its approval is {state}"))
            case UnknownEffect(detail=detail):
                raise approved.record.stop(ActionUncertain(approval, detail))


async def _begin(approved: ApprovedCall) -> BeginResult:
    """Begins the execution, if the table of approvals allows it, the run does not repeat itself, and it is valid."""
    record, approval, call = approved.record, approved.approval, approved.call
    database, now = record.runtime.database, record.runtime.clock.now()
    known = await database.read(load_approvals(record.request.run_id, now))
    earlier = [one for one in known if (one.digest, one.state) == (approval.digest, "executed")]
    try:
        record.loop.guard.count_tool_call(
            approval.tool, approval.arguments, sum(one.round < approval.round for one in earlier)
        )
    except Looping as looping:
        await database.write(withdraw_unexecuted(approval.approval_id, str(looping)))
        raise record.stop(looping) from None
    [current] = [one for one in known if one.approval_id == approval.approval_id]
    # One that was begun before may have made itself invalid.
    if current.state == "approved" and current.executing_until is None and call.digest == current.digest:
        invalid = await _why_invalid(approved)
        if invalid is not None:
            await database.write(withdraw_unexecuted(approval.approval_id, invalid))
    begun: BeginResult
    [begun] = await database.write(begin(approval.approval_id, call.digest, now))
    if isinstance(begun, UnknownEffect):
        _wait_for_lease(approved, current)
        happened = await _reconcile(approved)
        if happened is not None:
            await database.write(reconcile_uncertain(approval.approval_id, happened, now))
            [begun] = await database.write(begin(approval.approval_id, call.digest, now))
    return begun


def _wait_for_lease(approved: ApprovedCall, current: Approval) -> None:
    """Raises StillExecuting if a tool can say whether an action happened, and its last execution may not have ended.

    A thread goes on after its task was cancelled, and what has not happened yet may happen later.
    """
    until = current.executing_until
    if checks_of(approved.call.tool).reconcile is None or current.state != "unknown_after_crash" or until is None:
        return
    if approved.record.runtime.clock.now() < until:
        still = StillExecuting(
            f"approval {current.approval_id}: its execution may not have ended; try again after "
            f"{until.isoformat(timespec='seconds')}"
        )
        raise approved.record.stop(still)


async def _execute(approved: ApprovedCall) -> Any:
    """Executes the action that was begun, and records how it ended."""
    record, approval = approved.record, approved.approval
    database, approval_id = record.runtime.database, approval.approval_id
    token = _executing.set(approval)
    record.executing.add(approval_id)
    try:
        result = await approved.execute()
    except Exception as error:
        if isinstance(error, TOOL_CONTROL_FLOW) and _raised_by_tool(error):
            # The tool did not act: it asks the model, or people, for something else.
            shown = error.__cause__ or error
            await database.write(decline(approval_id, f"the tool did not act: {type(shown).__name__} {shown}"))
            raise
        detail = f"{type(error).__name__}: {error}"
        await database.write(fail(approval_id, detail))
        if await _reconcile(approved):
            await database.write(reconcile_uncertain(approval_id, True, record.runtime.clock.now()))
            return RESULT_UNKNOWN
        if is_bug(error):
            # It has to reach its author.
            raise
        raise record.stop(ActionUncertain(approval, detail)) from error
    finally:
        record.executing.discard(approval_id)
        _executing.reset(token)
    await database.write(complete(approval_id, storable(result)))
    return result


def _raised_by_tool(signal: BaseException) -> bool:
    """Whether a tool's own code raised a signal, such as ModelRetry, and so says that it did not act.

    Pydantic AI raises the same for a tool that takes too long or whose server fails, and a hook may raise it after the
    tool has acted.
    """
    frames = [frame for frame, _ in traceback.walk_tb(signal.__traceback__)]
    if signal.__cause__ is not None:
        frames += [frame for frame, _ in traceback.walk_tb(signal.__cause__.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    hooked = any(
        frame.f_code.co_name in _HOOKS and module != "handrail" for frame, module in zip(frames, modules, strict=True)
    )
    return bool(frames) and modules[-1] not in _NO_TOOLS and not hooked


async def _propose_again(approved: ApprovedCall) -> Any:
    """Ends an approval that was given for another call, and asks for a new one, or the model for a valid call."""
    database, error = approved.record.runtime.database, approved.call.error
    if error is not None:
        reason = f"its arguments do not fit the tool any more: {error}"
        await database.write(withdraw_unexecuted(approved.approval.approval_id, reason))
        raise error
    await database.write(withdraw_unexecuted(approved.approval.approval_id, _CHANGED))
    raise ApprovalRequired({"approver": approved.approval.approver})


async def _why_invalid(approved: ApprovedCall) -> str | None:
    """Why the action may not be executed any more, as the tool's `still_valid` says; None if it may."""
    approval, still_valid = approved.approval, checks_of(approved.call.tool).still_valid
    if still_valid is None:
        return None
    try:
        valid = await _call(still_valid, approval.arguments)
    except Exception as error:
        failed = ResumeFailed(
            f"approval {approval.approval_id}, {approval.tool}: still_valid raised {type(error).__name__}: {error}"
        )
        raise approved.record.stop(failed) from error
    if valid is True:
        return None
    return valid if isinstance(valid, str) and valid else "it is not valid any more"


async def _reconcile(approved: ApprovedCall) -> bool | None:
    """Whether the action happened, as the tool's `reconcile` says; None if it cannot tell."""
    approval, reconcile = approved.approval, checks_of(approved.call.tool).reconcile
    if reconcile is None:
        return None
    with approved.record.recorder.span(
        f"reconcile {approval.tool}", {semconv.APPROVAL_ID: approval.approval_id}
    ) as span:
        try:
            happened = await _call(reconcile, approval.approval_id, approval.arguments)
        except Exception as error:  # noqa: BLE001 - then a person finds out
            span.fail(type(error).__name__)
            span.payload["error"] = str(error)
            return None
        span.payload["result"] = happened
    return happened if isinstance(happened, bool) else None


async def _call(check: Callable[..., Any], *args: Any) -> Any:
    """Calls a check of the user's; one that is not asynchronous runs in a thread, as a tool does."""
    if inspect.iscoroutinefunction(check):
        return await check(*args)
    result = await asyncio.to_thread(check, *args)
    return await result if inspect.isawaitable(result) else result


def new_approvals(record: RunRecord, deferred: DeferredToolRequests) -> tuple[Approval, ...]:
    """The pending approvals of a run that stopped before irreversible calls, all of its next round."""
    return tuple(
        _new_approval(
            record,
            part.tool_call_id,
            record.loop.calls[part.tool_call_id],
            deferred.metadata.get(part.tool_call_id) or {},
        )
        for part in deferred.approvals
    )


def _new_approval(record: RunRecord, call_id: str, call: ProposedCall, asked: Mapping[str, Any]) -> Approval:
    request, now = record.request, record.runtime.clock.now()
    return Approval(
        approval_id=new_id("appr", now),
        run_id=request.run_id,
        round=record.round + 1,
        tenant=request.tenant,
        user=request.user,
        agent=request.agent,
        tool=call.tool.name,
        call_id=call_id,
        arguments=call.arguments,
        schema_hash=call.schema_hash,
        digest=call.digest,
        approver=approver_for(call.tool, asked.get("approver")),
        idempotent=is_idempotent(call.tool),
        state="pending",
        proposed_at=now,
        expires_at=now + DECISION_PERIOD,
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
