"""Why a run was handed to a person, in a sentence, with what that person can do. Pure."""

from collections.abc import Mapping
from typing import Any

_ADVICE: Mapping[str, str] = {
    "action_uncertain": "An approved action may have happened. Say below whether it did: the run then goes on.",
    "approval_expired": "Nobody decided in time. Start the run again if the action is still wanted.",
    "approval_withdrawn": "An approval was withdrawn before the run could go on.",
    "resume_failed": (
        "The run could not go on after its approvals were decided, however often it was tried. What was approved and "
        "not executed is withdrawn. Remove the cause, then start the run again, or do the work by hand."
    ),
}


def escalation_advice(outcome_body: Mapping[str, Any]) -> str | None:
    """What an outcome's reason means for the person who gets the run; None if there is nothing to add to it."""
    return _ADVICE.get(str(outcome_body.get("reason")))
