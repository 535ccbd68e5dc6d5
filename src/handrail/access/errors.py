"""What can stand in the way of somebody who wants in.

HandrailError
├── WrongCredentials   give the right name and password, or the right key
├── TooManyTries       wait until `retry_at`
└── NotAllowed         ask for a key or an account that may do this
"""

from datetime import datetime
from typing import ClassVar

from handrail.kernel.errors import HandrailError


class WrongCredentials(HandrailError):
    """Nobody is let in with these; the message does not say which part is wrong."""

    code: ClassVar[str] = "wrong_credentials"


class TooManyTries(HandrailError):
    """Too many failed logins for this name or from this address."""

    code: ClassVar[str] = "too_many_tries"

    def __init__(self, retry_at: datetime) -> None:
        super().__init__(f"too many failed logins; try again after {retry_at.isoformat(timespec='seconds')}")
        self.retry_at = retry_at


class NotAllowed(HandrailError):
    """Who asks is known, and may not do this."""

    code: ClassVar[str] = "not_allowed"
