"""The words in which lists and pages show the state of an approval."""

from collections.abc import Mapping

from .model import UNCERTAIN, Approval, State

STATE_LABELS: Mapping[State, str] = {
    "pending": "pending",
    "approved": "approved",
    "denied": "denied",
    "expired": "expired",
    "withdrawn": "withdrawn",
    "executing": "executing",
    "executed": "executed",
    "failed": "failed, may have happened",
    "unknown_after_crash": "interrupted, may have happened",
}


def is_uncertain(approval: Approval) -> bool:
    """Whether the action may or may not have happened, so that the run waits until a person says which."""
    return approval.state in UNCERTAIN


def settlement_label(approval: Approval) -> str | None:
    """What was found out last about an action that was uncertain; None if it never was."""
    if approval.settled_at is None:
        return None
    return "it happened" if approval.happened else "it did not happen; run it again"
