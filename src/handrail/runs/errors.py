"""What ends a run on purpose: neither a fault of a model or a tool nor an error in a program."""

from typing import ClassVar

from handrail.ceilings.decision import Refusal
from handrail.kernel.errors import HandrailError
from handrail.review.approvals.model import Approval


class CeilingReached(HandrailError):
    """A model request would cross a ceiling and was not sent; `refusal` has the arithmetic. Wait, or raise it."""

    code: ClassVar[str] = "ceiling_reached"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class ActionUncertain(HandrailError):
    """An approved action failed on the way, or its process died: a person has to look whether it took place."""

    code: ClassVar[str] = "action_uncertain"

    def __init__(self, approval: Approval, detail: str) -> None:
        super().__init__(f"approval {approval.approval_id}, {approval.tool}: {detail}")
        self.approval = approval


class NotResumable(HandrailError):
    """The run waits for nothing that is decided: look at `handrail runs show` before trying again."""

    code: ClassVar[str] = "not_resumable"
