"""The rules of approvals, as pure functions: who may decide, until when, and who may execute."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from .errors import StillExecuting
from .model import (
    AlreadyExecuted,
    Approval,
    BeginResult,
    CallDiffers,
    Execute,
    NotApproved,
    Transition,
    UnknownEffect,
)

_ROLE = "role:"
_PROCESS_GONE = "its process died while it was being executed"


def why_not_permitted(approval: Approval, person: str, roles: Mapping[str, Collection[str]]) -> str | None:
    """Checks whether a person may decide an approval.

    Args:
        approval: What is to be decided. Nobody may decide one whose approver is neither `requester` nor `role:NAME`.
        person: The name of who wants to decide.
        roles: The members of each role.

    Returns:
        None if they may, else the reason why not, with who may.
    """
    if approval.approver == "requester":
        return None if person == approval.user else f"only {approval.user}, who started the run, may decide it"
    if not approval.approver.startswith(_ROLE):
        return f"its approver {approval.approver!r} is neither 'requester' nor 'role:NAME'; nobody may decide it"
    role = approval.approver.removeprefix(_ROLE)
    members = roles.get(role, ())
    if not members:
        return (
            f"nobody has the role {role}, which has to decide it; give it to people in handrail.toml, in the table "
            f'[roles]: "{role}" = ["{person}"]'
        )
    return None if person in members else f"only members of the role {role} may decide it: {', '.join(sorted(members))}"


def why_not_open(approval: Approval, now: datetime) -> str | None:
    """None while the approval may be decided, else what became of it."""
    if approval.decided_by is not None and approval.decided_at is not None:
        decision = "denied" if approval.state == "denied" else "approved"
        return f"{decision} by {approval.decided_by} at {approval.decided_at.isoformat(timespec='seconds')}"
    if approval.state == "withdrawn":
        return "withdrawn, since its run does not wait for it any more"
    if approval.state == "expired" or now >= approval.expires_at:
        return f"expired at {approval.expires_at.isoformat(timespec='seconds')}"
    return None


def begin_execution(approval: Approval, digest: str, now: datetime) -> tuple[Transition | None, BeginResult]:
    """Decides whether a process may execute a call.

    Args:
        approval: The approval of the call.
        digest: The digest of the call that the process wants to execute.
        now: The time.

    Returns:
        The transition to make, if any, and the answer to the process.

    Raises:
        StillExecuting: While another execution is under way.
    """
    match approval.state:
        case "approved" if approval.digest == digest:
            return "begin", Execute()
        case "approved" if approval.executing_until is not None:
            # Its key would repeat the first attempt, but another call gets a key of its own.
            return "lose_track", UnknownEffect(f"{_PROCESS_GONE}, and the call has changed since")
        case "approved":
            return None, CallDiffers()
        case "executed":
            settled = approval.happened is True and approval.executing_until is None
            return None, AlreadyExecuted(approval.result, is_known=not settled)
        case "unknown_after_crash":
            return None, UnknownEffect(_PROCESS_GONE)
        case "failed":
            return None, UnknownEffect(f"it failed: {approval.result}")
        case "executing":
            until = approval.executing_until
            if until is not None and now < until:
                raise StillExecuting(
                    f"approval {approval.approval_id}: another process is executing it; try again after "
                    f"{until.isoformat(timespec='seconds')}"
                )
            if approval.idempotent and approval.digest == digest:
                return "begin_again", Execute()
            return "lose_track", UnknownEffect(_PROCESS_GONE)
        case "withdrawn" if approval.digest != digest:
            return None, CallDiffers()
        case other:
            return None, NotApproved(other, approval.reason)


def recovery_transition(approval: Approval) -> Transition | None:
    """The transition of an approval whose run was taken over from a process that is gone; None if it needs none."""
    if approval.state != "executing":
        return None
    return "return" if approval.idempotent else "lose_track"


def as_of(approval: Approval, now: datetime) -> Approval:
    """The approval as it stands at a time: one that nobody decided in time is expired, whether or not a job said so."""
    overdue = approval.state == "pending" and now >= approval.expires_at
    return replace(approval, state="expired") if overdue else approval
