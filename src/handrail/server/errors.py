"""What can be wrong with a request itself.

HandrailError
├── StaleForm        load the page again, and send its form from there
├── LoginNeeded      log in
├── KeyReused        take another Idempotency-Key for another request
├── StillRunning     ask again a little later
├── RateLimited      slow down; `retry_after` says for how long
├── TooLarge         send less at once
└── WrongHost        use the address that the server was started for
"""

from typing import ClassVar

from handrail.kernel.errors import HandrailError


class StaleForm(HandrailError):
    """The form was not sent from a page of this login."""

    code: ClassVar[str] = "stale_form"


class LoginNeeded(HandrailError):
    """Nobody is logged in."""

    code: ClassVar[str] = "login_needed"


class KeyReused(HandrailError):
    """An Idempotency-Key came with two different requests."""

    code: ClassVar[str] = "idempotency_key_reused"


class StillRunning(HandrailError):
    """The first request with this Idempotency-Key has not been answered yet."""

    code: ClassVar[str] = "still_running"


class RateLimited(HandrailError):
    """More requests than this caller may make."""

    code: ClassVar[str] = "rate_limited"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class TooLarge(HandrailError):
    """The request's body is above the limit."""

    code: ClassVar[str] = "too_large"


class WrongHost(HandrailError):
    """The request names another host than this server's, or comes from another site's page."""

    code: ClassVar[str] = "wrong_host"
