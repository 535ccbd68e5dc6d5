"""Errors of the HTTP request itself.

HandrailError
├── StaleForm        reload the page, and send its form from there
├── LoginRequired    log in
├── KeyReused        use another Idempotency-Key for another request
├── StillRunning     repeat the request a little later
├── RateLimited      wait `retry_after` seconds
├── BodyTooLarge     send less in one request
└── WrongHost        use the address that the server was started for
"""

from typing import ClassVar

from handrail.kernel.errors import HandrailError


class StaleForm(HandrailError):
    """The form's token does not belong to this session."""

    code: ClassVar[str] = "stale_form"


class LoginRequired(HandrailError):
    """The page requires a session."""

    code: ClassVar[str] = "login_required"


class KeyReused(HandrailError):
    """An Idempotency-Key was sent with two different requests."""

    code: ClassVar[str] = "idempotency_key_reused"


class StillRunning(HandrailError):
    """The first request with this Idempotency-Key has no response yet."""

    code: ClassVar[str] = "still_running"


class RateLimited(HandrailError):
    """The caller exceeded its rate limit."""

    code: ClassVar[str] = "rate_limited"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class BodyTooLarge(HandrailError):
    """The request's body exceeds the limit."""

    code: ClassVar[str] = "too_large"


class WrongHost(HandrailError):
    """The request addresses another host than this server, or comes from another site's page."""

    code: ClassVar[str] = "wrong_host"
