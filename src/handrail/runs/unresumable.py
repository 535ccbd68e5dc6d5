"""Ends a run that could not be resumed however often it was tried: a person gets it, with the reason."""

from handrail.review.approvals.model import UNCERTAIN
from handrail.review.approvals.store import withdraw

from . import user_messages
from .completion import commit_outcome
from .errors import ActionUncertain, NotResumable, ResumeFailed
from .execution import uncertain_outcome
from .outcome import Escalated, Proposal
from .record import RunRecord
from .resume import blocked_outcome, record_waiting_time, take_over_run
from .runtime import Runtime


async def escalate_unresumable(runtime: Runtime, run_id: str, reason: str) -> bool:
    """Escalates a run that nobody could resume; what was approved and not executed is withdrawn.

    Args:
        runtime: The runtime whose store has the run.
        run_id: The run's whole id.
        reason: Why it could not be resumed, for the person who gets it.

    Returns:
        Whether the run was escalated; not if it has ended, or another process is working on it.

    Raises:
        StoreError: The store failed.
    """
    try:
        resumed = await take_over_run(runtime, run_id)
    except NotResumable:
        return False
    record = RunRecord(runtime, None, resumed.request, resumed.state())
    with record.root_span() as root:
        record_waiting_time(record, resumed.approvals)
        outcome = blocked_outcome(record, resumed.approvals) or _outcome(record, reason)
        root.payload["outcome"] = outcome
    ops = [] if outcome.reason == ActionUncertain.code else [withdraw(run_id)]
    await commit_outcome(record, outcome, None, *ops)
    return True


def _outcome(record: RunRecord, reason: str) -> Escalated:
    approvals = record.approvals.values()
    uncertain = [approval for approval in approvals if approval.state in UNCERTAIN]
    if uncertain:
        return uncertain_outcome(record, ActionUncertain(uncertain[0], reason))
    with record.recorder.span("escalate", {"handrail.reason": reason}) as span:
        span.fail(ResumeFailed.code)
    return Escalated(
        reason=ResumeFailed.code,
        message=user_messages.ESCALATED,
        facts=record.facts(),
        proposals=tuple(
            Proposal(tool=approval.tool, arguments=approval.arguments, call_id=approval.call_id)
            for approval in approvals
            if approval.state == "approved"
        ),
        detail=reason,
    )
