"""What can stand in the way of a decision or of an execution.

HandrailError
├── NotPermitted      ask one of the people it names to decide
├── AlreadyDecided    read how it was decided; nothing is left to do
└── StillExecuting    try again later
"""

from typing import ClassVar

from handrail.kernel.errors import HandrailError


class NotPermitted(HandrailError):
    """This person may not decide the approval; the message says who may."""

    code: ClassVar[str] = "not_permitted"


class AlreadyDecided(HandrailError):
    """The approval is not open any more; the message says how that came."""

    code: ClassVar[str] = "already_decided"


class StillExecuting(HandrailError):
    """Another process is executing the action."""

    code: ClassVar[str] = "still_executing"
