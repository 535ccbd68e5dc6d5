"""The rules of approvals: who may decide, until when, and what may be executed."""

import re
from datetime import timedelta
from typing import Any

import pytest

from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.model import (
    DECISION_PERIOD,
    EXECUTION_LEASE,
    TRANSITIONS,
    AlreadyExecuted,
    BeginResult,
    CallDiffers,
    Execute,
    NotApproved,
    State,
    Transition,
    UnknownEffect,
)
from handrail.review.approvals.state_machine import (
    as_of,
    begin_execution,
    recovery_transition,
    why_not_open,
    why_not_permitted,
)
from tests.review.samples import DIGEST, NOW, ROLES, approval

STATES = sorted({after for _, after in TRANSITIONS.values()} | {"pending"})
DECIDED = {"decided_by": "ann", "decided_at": NOW}


@pytest.mark.parametrize(
    ("approver", "person", "reason"),
    [
        ("requester", "u-17", None),
        ("requester", "ann", "only u-17, who started the run"),
        ("requester", "", "only u-17"),
        ("role:lead", "ann", None),
        ("role:lead", "bob", None),
        ("role:lead", "Ann", "only members of the role lead may decide it: ann, bob"),
        ("role:lead", "u-17", "ann, bob"),
        ("role:lead", "lead", "ann, bob"),
        ("role:empty", "ann", 'nobody has the role empty.*handrail.toml.*\\[roles\\]: "empty" = \\["ann"\\]'),
        ("role:unheard-of", "ann", "nobody has the role unheard-of"),
        ("role:", "ann", "nobody has the role"),
        ("lead", "ann", "neither 'requester' nor 'role:NAME'; nobody may decide it"),
        ("", "", "nobody may decide it"),
    ],
)
def test_who_may_decide(approver: str, person: str, reason: str | None) -> None:
    """The requester is the run's user and a role its members; for all others the reason names who may decide."""
    why_not = why_not_permitted(approval(approver=approver), person, ROLES)
    assert why_not is None if reason is None else re.search(reason, why_not or "")


@pytest.mark.parametrize(
    ("overrides", "seconds", "reason"),
    [
        ({}, 0, None),
        ({}, DECISION_PERIOD.total_seconds() - 1e-6, None),
        ({}, DECISION_PERIOD.total_seconds(), "expired at 2026-01-04T00:00:00.00:00"),
        ({"state": "expired"}, 0, "expired at"),
        ({"state": "withdrawn"}, 0, "withdrawn"),
        ({"state": "denied", **DECIDED}, 0, "denied by ann at 2026-01-01T00:00:00"),
        ({"state": "approved", **DECIDED}, 0, "approved by ann"),
        ({"state": "executing", **DECIDED}, 0, "approved by ann"),
        ({"state": "unknown_after_crash", **DECIDED}, DECISION_PERIOD.total_seconds(), "approved by ann"),
    ],
)
def test_open_approvals(overrides: dict[str, Any], seconds: float, reason: str | None) -> None:
    """An approval is open until it is decided, withdrawn or expired; after that there is a reason."""
    why_not = why_not_open(approval(**overrides), NOW + timedelta(seconds=seconds))
    assert why_not is None if reason is None else re.search(reason, why_not or "")


LATE = NOW + EXECUTION_LEASE
GONE = "its process died while it was being executed"


@pytest.mark.parametrize(
    ("state", "idempotent", "late", "move", "begun"),
    [
        ("pending", True, False, None, NotApproved("pending")),
        ("denied", True, False, None, NotApproved("denied")),
        ("expired", True, False, None, NotApproved("expired")),
        ("withdrawn", True, False, None, NotApproved("withdrawn")),
        ("approved", False, False, "begin", Execute()),
        ("executed", False, True, None, AlreadyExecuted({"paid": True})),
        ("failed", True, False, None, UnknownEffect("it failed: timed out")),
        ("unknown_after_crash", False, True, None, UnknownEffect(GONE)),
        ("executing", False, True, "lose_track", UnknownEffect(GONE)),
        ("executing", True, True, "begin_again", Execute()),
    ],
)
def test_who_may_execute(
    state: State, idempotent: bool, late: bool, move: Transition | None, begun: BeginResult
) -> None:
    """Only an approved action begins; an execution whose lease expired begins again only for an idempotent tool."""
    proposal = approval(
        state=state,
        idempotent=idempotent,
        executing_until=LATE if state == "executing" else None,
        result={"executed": {"paid": True}, "failed": "timed out"}.get(state),
    )
    assert begin_execution(proposal, DIGEST, LATE if late else NOW) == (move, begun)


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_running_execution_is_not_repeated(idempotent: bool) -> None:
    """Until its lease expires, another execution raises StillExecuting with the time to try again."""
    proposal = approval(state="executing", idempotent=idempotent, executing_until=LATE)
    with pytest.raises(StillExecuting, match="try again after 2026-01-01T00:15:00"):
        begin_execution(proposal, DIGEST, LATE - timedelta(microseconds=1))


@pytest.mark.parametrize("state", STATES)
def test_another_digest_never_executes(state: State) -> None:
    """A call with other arguments than the approved ones never begins; it asks again, or is uncertain."""
    proposal = approval(state=state, idempotent=True, executing_until=NOW, result="done", reason="why")
    transition, begun = begin_execution(proposal, "f" * 64, LATE)
    expected: dict[State, BeginResult] = {
        "approved": UnknownEffect(f"{GONE}, and the call has changed since"),
        "withdrawn": CallDiffers(),
        "executing": UnknownEffect(GONE),
        "executed": AlreadyExecuted("done"),
        "failed": UnknownEffect("it failed: done"),
        "unknown_after_crash": UnknownEffect(GONE),
    }
    assert begun == expected.get(state, NotApproved(state, "why"))
    assert transition == ("lose_track" if state in ("approved", "executing") else None)


def test_a_changed_call_that_was_not_begun_asks_again() -> None:
    """A call that differs from the approved one, of which no attempt was made, is to be proposed again."""
    assert begin_execution(approval(state="approved"), "f" * 64, NOW) == (None, CallDiffers())


@pytest.mark.parametrize("state", STATES)
def test_recovery_changes_only_executing_approvals(state: State) -> None:
    """An executing action returns to approved if idempotent and otherwise becomes unknown; other states stay."""
    expected = ("return", "lose_track") if state == "executing" else (None, None)
    assert (
        tuple(recovery_transition(approval(state=state, idempotent=idempotent)) for idempotent in (True, False))
        == expected
    )


def test_only_approved_actions_execute() -> None:
    """`executing` is reached only from `approved` or itself, and no move leaves a final state."""
    into_execution = [before for before, after in TRANSITIONS.values() if after == "executing"]
    assert frozenset().union(*into_execution) == {"approved", "executing"}
    left = frozenset().union(*(before for before, _ in TRANSITIONS.values()))
    assert left == {"pending", "approved", "executing", "failed", "unknown_after_crash"}


@pytest.mark.parametrize("state", STATES)
def test_overdue_approvals(state: State) -> None:
    """From its expiry on, an approval that nobody decided counts as expired; other states stay."""
    proposal = approval(state=state)
    assert as_of(proposal, proposal.expires_at - timedelta(microseconds=1)) == proposal
    assert as_of(proposal, proposal.expires_at).state == ("expired" if state == "pending" else state)
