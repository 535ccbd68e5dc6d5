"""Carries a run on that waited for people: taken over by one process, told what they decided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic_ai.messages import ModelMessage, UserPromptPart
from sqlalchemy import Connection

from handrail.kernel.clock import unix_ns
from handrail.review.approvals.model import Approval
from handrail.review.approvals.store import recover
from handrail.runs.store.pauses import Pause, take
from handrail.runs.store.runs import Claim, RunView
from handrail.traces import semconv
from handrail.traces.model import Usage

from . import user_messages
from .errors import NotResumable
from .outcome import Escalated, Proposal
from .record import Carried, Record
from .request import RunInput

_NO_WAY_ON = {
    "expired": ("approval_expired", user_messages.EXPIRED),
    "withdrawn": ("approval_withdrawn", user_messages.ESCALATED),
    "failed": ("action_uncertain", user_messages.UNCERTAIN),
    "unknown_after_crash": ("action_uncertain", user_messages.UNCERTAIN),
}
"""Approvals that keep their run from going on by itself: the reason a person is given, and what the user reads."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A run that this process has taken: how it stood, what carries it on, and the approvals of its last round."""

    run: RunView
    pause: Pause
    claim: Claim
    approvals: Sequence[Approval]

    @property
    def own_messages(self) -> Sequence[ModelMessage]:
        """What was said in the run itself, its conversation before it left out."""
        return self.pause.messages[self.pause.new_from :]

    @property
    def input(self) -> RunInput:
        """What the run was asked, as it was passed in."""
        parts = (part for message in self.own_messages for part in message.parts)
        return next((part.content for part in parts if isinstance(part, UserPromptPart)), None)

    def carried(self) -> Carried:
        """What the run's record goes on from."""
        run, pause = self.run, self.pause
        return Carried(
            claim=self.claim,
            trace_id=run.trace_id,
            root_span_id=pause.root_span_id,
            round=pause.round,
            approvals=self.approvals,
            model=run.model,
            fingerprint=run.fingerprint,
            requests=run.requests,
            usage=Usage(input=run.input_tokens, output=run.output_tokens),
            cost=run.cost,
            tools=pause.tools,
            retries_used=pause.retries_used,
            messages=len(pause.messages),
        )


def take_over(run_id: str, now: datetime) -> Callable[[Connection], Waiting]:
    """An op that takes a run whose approvals are decided. It raises NotFound and NotResumable."""
    taking, recovering = take(run_id, now), recover(run_id, now)

    def op(conn: Connection) -> Waiting:
        run, pause, claim = taking(conn)
        current = [each for each in recovering(conn) if each.round == pause.round]
        if open_ := [each.approval_id for each in current if each.state == "pending"]:
            raise NotResumable(f"run {run_id} waits for {', '.join(open_)}; see `handrail approvals list`")
        return Waiting(run=run, pause=pause, claim=claim, approvals=current)

    return op


def waited(record: Record, approvals: Sequence[Approval]) -> None:
    """Adds spans for the time that people took, apart from the machine's."""
    for each in approvals:
        attributes = {
            semconv.OPERATION: "await_approval",
            semconv.TOOL: each.tool,
            semconv.APPROVAL: each.state,
            semconv.APPROVAL_ID: each.approval_id,
            semconv.DECIDED_BY: each.decided_by,
        }
        decided = each.decided_at or each.expires_at
        record.recorder.past(f"await_approval {each.tool}", attributes, unix_ns(each.proposed_at), unix_ns(decided))


def no_way_on(record: Record, approvals: Sequence[Approval]) -> Escalated | None:
    """The end of a run that cannot go on by itself; None where all its approvals were decided and none went astray."""
    stuck = [each for each in approvals if each.state in _NO_WAY_ON]
    if not stuck:
        return None
    reason, message = _NO_WAY_ON[stuck[0].state]
    actions = tuple(Proposal(tool=each.tool, arguments=each.arguments, call_id=each.call_id) for each in stuck)
    detail = "; ".join(f"{each.tool} ({each.approval_id}) is {each.state}" for each in stuck)
    return Escalated(reason=reason, message=message, facts=record.facts(), proposals=actions, detail=detail)
