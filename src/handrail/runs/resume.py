"""Resumes a run that waited for people: one process takes it over, with their decisions."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pydantic_ai.messages import ModelMessage, UserPromptPart
from sqlalchemy import Connection

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.operation import operation
from handrail.kernel.errors import StoreError
from handrail.kernel.interruptions import INTERRUPTIONS, outwait, run_to_end
from handrail.review.approvals.model import Approval
from handrail.review.approvals.store import recover
from handrail.runs.store.pauses import Pause, claim_paused_run
from handrail.runs.store.queries import RunView
from handrail.runs.store.runs import Claim, renew_run_lease
from handrail.traces import semconv
from handrail.traces.model import Usage

from . import user_messages
from .errors import NotResumable
from .outcome import Escalated, Proposal
from .record import ResumeState, RunRecord
from .request import RunRequest
from .runtime import Runtime
from .totals import RunTotals

_BLOCKED_BY = {
    "expired": ("approval_expired", user_messages.EXPIRED),
    "withdrawn": ("approval_withdrawn", user_messages.ESCALATED),
}
"""The states of an approval that block its run, each with the escalation's reason and what the user reads.

An uncertain action blocks it too, but only once the tool's `reconcile` was asked; see `execute_approved`.
"""


@dataclass(frozen=True, kw_only=True)
class ResumedRun:
    """A run that this process has taken over, with the approvals of its last round."""

    run: RunView
    pause: Pause
    claim: Claim
    approvals: Sequence[Approval]

    @property
    def own_messages(self) -> Sequence[ModelMessage]:
        """The run's own messages, without the conversation before it."""
        return self.pause.messages[self.pause.new_from :]

    @property
    def conversation(self) -> Sequence[ModelMessage]:
        """The messages of the conversation's earlier runs."""
        return self.pause.messages[: self.pause.new_from]

    @property
    def request(self) -> RunRequest:
        """The run's request as it was made first, without its deps."""
        parts = (part for message in self.own_messages for part in message.parts)
        return RunRequest(
            run_id=self.run.run_id,
            agent=self.run.agent,
            input=next((part.content for part in parts if isinstance(part, UserPromptPart)), None),
            user=self.run.user,
            tenant=self.run.tenant,
            conversation_id=self.run.conversation_id,
            deps=None,
        )

    def state(self) -> ResumeState:
        """The state that the run's record continues from."""
        run, pause = self.run, self.pause
        return ResumeState(
            claim=self.claim,
            trace_id=run.trace_id,
            root_span_id=pause.root_span_id,
            round=pause.round,
            approvals=self.approvals,
            model=run.model,
            fingerprint=run.fingerprint,
            totals=RunTotals(
                requests=run.requests,
                usage=Usage(input=run.input_tokens, output=run.output_tokens),
                cost=run.cost,
                tools=tuple(pause.tools),
            ),
            retries_used=pause.retries_used,
            retry_instruction=pause.retry_instruction,
            message_count=len(pause.messages),
        )


@operation
def take_over(conn: Connection, run_id: str, now: datetime) -> ResumedRun:
    """Takes over a run whose approvals are decided, for this process.

    Also resolves the actions that a dead process was executing: an idempotent one may be executed again, any other one
    becomes uncertain.

    Args:
        conn: The connection, within a transaction.
        run_id: The run's whole id.
        now: The time.

    Raises:
        NotFound: No run has this id.
        NotResumable: The run is not waiting, or one of its approvals is not decided; nothing was changed.
    """
    run, pause, claim = claim_paused_run(run_id, now)(conn)
    approvals = [approval for approval in recover(run_id, now)(conn) if approval.round == pause.round]
    if pending := [approval.approval_id for approval in approvals if approval.state == "pending"]:
        raise NotResumable(f"run {run_id} waits for {', '.join(pending)}; see `handrail approvals list`")
    return ResumedRun(run=run, pause=pause, claim=claim, approvals=approvals)


async def take_over_run(runtime: Runtime, run_id: str) -> ResumedRun:
    """Takes over a run as `take_over` does; a caller that is cancelled meanwhile leaves it for others at once.

    Args:
        runtime: The runtime whose store has the run.
        run_id: The run's whole id.

    Raises:
        NotFound: No run has this id.
        NotResumable: The run is not waiting, or one of its approvals is not decided.
        StoreError: The store failed.
    """
    write = asyncio.ensure_future(runtime.database.write(take_over(run_id, runtime.clock.now())))
    try:
        [resumed] = await asyncio.shield(write)
    except INTERRUPTIONS:
        await outwait(write)
        if write.exception() is None:
            claim = write.result()[0].claim
            with suppress(StoreError):
                await run_to_end(runtime.database.write(renew_run_lease(claim, runtime.clock.now())))
        raise
    taken_over: ResumedRun = resumed
    return taken_over


def record_waiting_time(record: RunRecord, approvals: Sequence[Approval]) -> None:
    """Adds a span for each wait for a decision, so that traces tell it from time that the machine took."""
    for approval in approvals:
        attributes = {
            semconv.OPERATION: "await_approval",
            semconv.TOOL: approval.tool,
            semconv.APPROVAL: approval.state,
            semconv.APPROVAL_ID: approval.approval_id,
            semconv.DECIDED_BY: approval.decided_by,
        }
        end = approval.decided_at or approval.expires_at
        record.recorder.add_finished(
            f"await_approval {approval.tool}", attributes, unix_ns(approval.proposed_at), unix_ns(end)
        )


def blocked_outcome(record: RunRecord, approvals: Sequence[Approval]) -> Escalated | None:
    """The escalation of a run that cannot go on because of an approval; None if it can."""
    # An approval with a reason was withdrawn when the agent came to it, and the agent goes on with that.
    blocking = [approval for approval in approvals if approval.state in _BLOCKED_BY and approval.reason is None]
    if not blocking:
        return None
    reason, message = _BLOCKED_BY[blocking[0].state]
    proposals = tuple(
        Proposal(tool=approval.tool, arguments=approval.arguments, call_id=approval.call_id) for approval in blocking
    )
    detail = "; ".join(f"{approval.tool} ({approval.approval_id}) is {approval.state}" for approval in blocking)
    return Escalated(reason=reason, message=message, facts=record.facts(), proposals=proposals, detail=detail)
