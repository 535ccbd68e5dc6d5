"""Error responses: RFC 9457 problem bodies with a stable `code`, and the HTTP status of each HandrailError."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from handrail.access.errors import NotAllowed, TooManyLoginAttempts, WrongCredentials
from handrail.kernel.errors import BadInput, BadSettings, HandrailError, MissingExtra, NotFound, StoreError
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted, StillExecuting
from handrail.traces.otlp.validation import OtlpTooLarge, UnsupportedOtlpMedia

from .errors import BodyTooLarge, KeyReused, LoginRequired, RateLimited, StaleForm, StillRunning, WrongHost

MEDIA_TYPE = "application/problem+json"

_STATUS: Mapping[type[HandrailError], int] = {
    BadInput: 400,
    WrongCredentials: 401,
    LoginRequired: 401,
    NotAllowed: 403,
    NotPermitted: 403,
    StaleForm: 403,
    NotFound: 404,
    AlreadyDecided: 409,
    StillExecuting: 409,
    StillRunning: 409,
    KeyReused: 409,
    BodyTooLarge: 413,
    OtlpTooLarge: 413,
    UnsupportedOtlpMedia: 415,
    WrongHost: 421,
    TooManyLoginAttempts: 429,
    RateLimited: 429,
    BadSettings: 500,
    MissingExtra: 501,
    StoreError: 503,
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as it is sent to the client.

    Attributes:
        code: Stable, for programs.
        detail: For people.
        headers: Response headers, beside the content type.
        extensions: Members of the body beside those of RFC 9457.
    """

    status: int
    code: str
    detail: str
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = MEDIA_TYPE

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def body(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "type": f"urn:handrail:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": self.request_id,
            **self.extensions,
        }


def problem_for(error: Exception, request_id: str) -> Problem:
    """The problem that reports an error.

    Args:
        error: What was raised. A programming error is reported without its text, which is for the log only.
        request_id: The request's id, which the log has too.
    """
    if not isinstance(error, HandrailError):
        detail = f"internal error; the server's log has the details under request id {request_id}"
        return Problem(status=500, code="bug", detail=detail, request_id=request_id)
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    return Problem(
        status=status,
        code=error.code,
        detail=_detail(error, status),
        request_id=request_id,
        headers=_headers(error, status),
    )


def _detail(error: HandrailError, status: int) -> str:
    """The error's text. That of the server's own errors may name paths and addresses, so it goes to the log only."""
    match status:
        case 503:
            return "the database is unavailable; try again"
        case 500:
            return "the server is not configured for this; its log has the details"
        case _:
            return str(error)


def _headers(error: HandrailError, status: int) -> dict[str, str]:
    if isinstance(error, RateLimited):
        return {"retry-after": str(math.ceil(error.retry_after))}
    if isinstance(error, StillRunning):
        return {"retry-after": "2"}
    if status == 503:
        return {"retry-after": "1"}
    return {"www-authenticate": "Bearer"} if isinstance(error, WrongCredentials) else {}
