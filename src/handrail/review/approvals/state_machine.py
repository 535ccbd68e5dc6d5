"""The rules of approvals, as functions over values: who may decide, what is open still, who may execute."""

from collections.abc import Collection, Mapping
from datetime import datetime

from .errors import StillExecuting
from .model import AlreadyExecuted, Approval, Begun, Execute, Move, NotApproved, Unknown

_ROLE = "role:"


def why_not(approval: Approval, person: str, roles: Mapping[str, Collection[str]]) -> str | None:
    """None where `person` may decide the approval, else why not and who may; `roles` gives each role its people.

    An approver that is neither `requester` nor `role:NAME` lets nobody decide.
    """
    if approval.approver == "requester":
        may = person == approval.user
        return None if may else f"only {approval.user}, who started the run, may decide it"
    if not approval.approver.startswith(_ROLE):
        return f"its approver {approval.approver!r} is neither 'requester' nor 'role:NAME'; nobody may decide it"
    role = approval.approver.removeprefix(_ROLE)
    people = roles.get(role, ())
    if not people:
        return (
            f"nobody has the role {role}, which has to decide it; give it to people in handrail.toml, in the table "
            f'[roles]: "{role}" = ["{person}"]'
        )
    return None if person in people else f"only who has the role {role} may decide it: {', '.join(sorted(people))}"


def how_decided(approval: Approval, now: datetime) -> str | None:
    """None while the approval may be decided, else what became of it."""
    if approval.decided_by is not None and approval.decided_at is not None:
        verdict = "denied" if approval.state == "denied" else "approved"
        return f"{verdict} by {approval.decided_by} at {approval.decided_at.isoformat(timespec='seconds')}"
    if approval.state == "withdrawn":
        return "withdrawn, since its run does not wait for it any more"
    if approval.state == "expired" or now >= approval.expires_at:
        return f"open until {approval.expires_at.isoformat(timespec='seconds')}, and expired then"
    return None


def beginning(approval: Approval, digest: str, now: datetime) -> tuple[Move | None, Begun]:
    """What a process that wants to execute the call with this digest is told, and the move that goes with it.

    Raises StillExecuting while another execution is under way.
    """
    if approval.digest != digest:
        return None, NotApproved(approval.state)
    match approval.state:
        case "approved":
            return "begin", Execute()
        case "executed":
            return None, AlreadyExecuted(approval.result)
        case "unknown_after_crash":
            return None, Unknown()
        case "executing":
            until = approval.executing_until
            if until is not None and now < until:
                raise StillExecuting(
                    f"approval {approval.approval_id}: another process is executing it; try again after "
                    f"{until.isoformat(timespec='seconds')}"
                )
            return ("begin_again", Execute()) if approval.idempotent else ("lose_track", Unknown())
        case other:
            return None, NotApproved(other)


def recovering(approval: Approval) -> Move | None:
    """The move of an approval whose run was taken over from a process that is gone."""
    if approval.state != "executing":
        return None
    return "return" if approval.idempotent else "lose_track"
