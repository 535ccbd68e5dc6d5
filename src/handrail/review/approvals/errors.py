"""What can prevent a decision or an execution.

HandrailError
├── NotPermitted      ask one of the people it names to decide
├── AlreadyDecided    read what was decided; nothing is left to do
└── StillExecuting    try again later
"""

from typing import ClassVar

from handrail.kernel.errors import HandrailError


class NotPermitted(HandrailError):
    """This person may not decide the approval; the message names who may."""

    code: ClassVar[str] = "not_permitted"


class AlreadyDecided(HandrailError):
    """The approval is not open any more; the message says what became of it."""

    code: ClassVar[str] = "already_decided"


class StillExecuting(HandrailError):
    """Another process is executing the action."""

    code: ClassVar[str] = "still_executing"
