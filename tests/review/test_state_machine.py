"""Who may decide, what is open still, and who may execute: the rules one by one."""

import re
from datetime import timedelta
from typing import Any

import pytest

from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.model import (
    EXECUTING,
    EXPIRES,
    MOVES,
    AlreadyExecuted,
    Begun,
    Execute,
    Move,
    NotApproved,
    State,
    Unknown,
)
from handrail.review.approvals.state_machine import beginning, how_decided, recovering, why_not
from tests.review.samples import DIGEST, NOW, ROLES, approval

DECIDED = {"decided_by": "ann", "decided_at": NOW}


@pytest.mark.parametrize(
    ("approver", "person", "reason"),
    [
        ("requester", "u-17", None),
        ("requester", "ann", "only u-17, who started the run"),
        ("requester", "", "only u-17"),
        ("role:lead", "ann", None),
        ("role:lead", "bob", None),
        ("role:lead", "Ann", "only who has the role lead may decide it: ann, bob"),
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
    """The requester is who started the run, a role those who have it; everybody else is told who may."""
    found = why_not(approval(approver=approver), person, ROLES)
    assert found is None if reason is None else re.search(reason, found or "")


@pytest.mark.parametrize(
    ("changed", "seconds", "what"),
    [
        ({}, 0, None),
        ({}, EXPIRES.total_seconds() - 1e-6, None),
        ({}, EXPIRES.total_seconds(), "open until 2026-01-04T00:00:00.00:00, and expired then"),
        ({"state": "expired"}, 0, "expired then"),
        ({"state": "withdrawn"}, 0, "withdrawn"),
        ({"state": "denied", **DECIDED}, 0, "denied by ann at 2026-01-01T00:00:00"),
        ({"state": "approved", **DECIDED}, 0, "approved by ann"),
        ({"state": "executing", **DECIDED}, 0, "approved by ann"),
        ({"state": "unknown_after_crash", **DECIDED}, EXPIRES.total_seconds(), "approved by ann"),
    ],
)
def test_what_is_open_still(changed: dict[str, Any], seconds: float, what: str | None) -> None:
    """An approval is open until it is decided, withdrawn, or its time is over; then it is said how that came."""
    found = how_decided(approval(**changed), NOW + timedelta(seconds=seconds))
    assert found is None if what is None else re.search(what, found or "")


LATE = NOW + EXECUTING


@pytest.mark.parametrize(
    ("state", "idempotent", "late", "move", "begun"),
    [
        ("pending", True, False, None, NotApproved("pending")),
        ("denied", True, False, None, NotApproved("denied")),
        ("expired", True, False, None, NotApproved("expired")),
        ("withdrawn", True, False, None, NotApproved("withdrawn")),
        ("failed", True, False, None, NotApproved("failed")),
        ("approved", False, False, "begin", Execute()),
        ("executed", False, True, None, AlreadyExecuted({"paid": True})),
        ("unknown_after_crash", False, True, None, Unknown()),
        ("executing", False, True, "lose_track", Unknown()),
        ("executing", True, True, "begin_again", Execute()),
    ],
)
def test_who_may_execute(state: State, idempotent: bool, late: bool, move: Move | None, begun: Begun) -> None:
    """Only what is approved begins; an execution that is over due begins again only where the tool is idempotent."""
    found = approval(
        state=state,
        idempotent=idempotent,
        executing_until=LATE if state == "executing" else None,
        result={"paid": True} if state == "executed" else None,
    )
    assert beginning(found, DIGEST, LATE if late else NOW) == (move, begun)


@pytest.mark.parametrize("idempotent", [True, False])
def test_an_execution_under_way_is_left_alone(idempotent: bool) -> None:
    """Until its time is over, whoever else wants to execute is told to come later."""
    found = approval(state="executing", idempotent=idempotent, executing_until=LATE)
    with pytest.raises(StillExecuting, match="try again after 2026-01-01T00:15:00"):
        beginning(found, DIGEST, LATE - timedelta(microseconds=1))


@pytest.mark.parametrize("state", sorted({state for move in MOVES.values() for state in move}))
def test_another_digest_never_executes(state: State) -> None:
    """A call with other arguments than those approved begins nothing and is told nothing, whatever the state."""
    found = approval(state=state, idempotent=True, executing_until=NOW, result="secret")
    assert beginning(found, "f" * 64, LATE) == (None, NotApproved(state))


@pytest.mark.parametrize("state", sorted({state for move in MOVES.values() for state in move}))
def test_a_takeover_touches_only_what_was_executing(state: State) -> None:
    """What was executing may begin again where the tool is idempotent, and is unknown elsewhere; the rest stays."""
    expected = ("return", "lose_track") if state == "executing" else (None, None)
    assert tuple(recovering(approval(state=state, idempotent=each)) for each in (True, False)) == expected


def test_nothing_executes_that_was_not_approved() -> None:
    """The only ways into `executing` start at `approved` or in it, and no move leaves a state that ends an approval."""
    assert {before for before, after in MOVES.values() if after == "executing"} == {"approved", "executing"}
    assert {before for before, _ in MOVES.values()} == {"pending", "approved", "executing"}
