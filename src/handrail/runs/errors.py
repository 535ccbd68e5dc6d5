"""Errors that end a run or keep it from being resumed; faults of models and tools are values in the outcome."""

from collections.abc import Mapping
from typing import Any, ClassVar

from handrail.ceilings.decision import Refusal
from handrail.kernel.errors import BadInput, HandrailError, StoreError
from handrail.review.approvals.model import Approval

from .outcome import Outcome


class CeilingReached(HandrailError):
    """A model request would have exceeded a ceiling and was not sent: wait until it resets, or raise the ceiling."""

    code: ClassVar[str] = "ceiling_reached"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        """The arithmetic: whose ceiling, what was requested, what would fit and when it resets."""


class ActionUncertain(HandrailError):
    """An approved action failed midway, or its process died: a person has to check whether it took place."""

    code: ClassVar[str] = "action_uncertain"

    def __init__(self, approval: Approval, detail: str) -> None:
        super().__init__(f"approval {approval.approval_id}, {approval.tool}: {detail}")
        self.approval = approval
        """The approved action."""


class InnerActionBlocked(HandrailError):
    """An agent inside a tool wanted an irreversible action, which only the run's own agent may propose to people."""

    code: ClassVar[str] = "inner_action_blocked"

    def __init__(self, agent: str, tool: str, arguments: Mapping[str, Any], call_id: str) -> None:
        super().__init__(
            f"{agent} runs inside a tool and called {tool}, which is irreversible; give {tool} to the run's own agent"
        )
        self.tool = tool
        """The irreversible tool."""
        self.arguments = arguments
        """The arguments that the model chose, by parameter."""
        self.call_id = call_id
        """The id that the model gave the call."""


class DepsMissing(BadInput):
    """The run was given its deps by its caller, who has to pass them again to resume it."""

    code: ClassVar[str] = "deps_missing"


class RunEnded(HandrailError):
    """A task that a run started wants to spend after the run has ended: wait for it, or start a run of its own."""

    code: ClassVar[str] = "run_ended"


class NotResumable(HandrailError):
    """The run is not waiting, or its approvals are not all decided: check `handrail runs show` first."""

    code: ClassVar[str] = "not_resumable"


class ResumeFailed(HandrailError):
    """The run cannot be resumed here and now; nothing of it is lost. Remove the reason and resume it again."""

    code: ClassVar[str] = "resume_failed"


class OutcomeNotStored(StoreError):
    """The run ended, but its outcome could not be committed: repair the store before going on."""

    def __init__(self, outcome: Outcome[Any], error: StoreError) -> None:
        super().__init__(f"run {outcome.facts.run_id} ended ({outcome.type}) but was not stored: {error}")
        self.outcome = outcome
        """How the run ended; this is the only copy."""
