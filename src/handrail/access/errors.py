"""Errors of authentication and authorization.

HandrailError
├── WrongCredentials       send the right name and password, or a valid API key
├── TooManyLoginAttempts   wait until `retry_at`
└── NotAllowed             use an API key or an account that may do this
"""

from datetime import datetime
from typing import ClassVar

from handrail.kernel.errors import HandrailError


class WrongCredentials(HandrailError):
    """The name and password, or the API key, were not accepted. The message never says which part was wrong."""

    code: ClassVar[str] = "wrong_credentials"


class TooManyLoginAttempts(HandrailError):
    """Too many failed logins for this name or from this address."""

    code: ClassVar[str] = "too_many_login_attempts"

    def __init__(self, retry_at: datetime) -> None:
        super().__init__(f"too many failed logins; try again after {retry_at.isoformat(timespec='seconds')}")
        self.retry_at = retry_at


class NotAllowed(HandrailError):
    """The caller is known, but lacks the permission."""

    code: ClassVar[str] = "not_allowed"
