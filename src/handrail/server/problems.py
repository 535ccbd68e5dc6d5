"""Errors as answers: RFC 9457 problem bodies with a stable `code`, each error of the tree with its HTTP status."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from handrail.access.errors import NotAllowed, TooManyTries, WrongCredentials
from handrail.kernel.errors import BadInput, BadSettings, HandrailError, MissingExtra, NotFound, StoreError
from handrail.review.approvals.errors import AlreadyDecided, NotPermitted, StillExecuting
from handrail.traces.otlp.validation import TooLarge as TooManySpans
from handrail.traces.otlp.validation import UnsupportedMedia

from .errors import KeyReused, LoginNeeded, RateLimited, StaleForm, StillRunning, TooLarge, WrongHost

MEDIA_TYPE = "application/problem+json"

_STATUS: Mapping[type[HandrailError], int] = {
    BadInput: 400,
    WrongCredentials: 401,
    LoginNeeded: 401,
    NotAllowed: 403,
    NotPermitted: 403,
    StaleForm: 403,
    NotFound: 404,
    AlreadyDecided: 409,
    StillExecuting: 409,
    StillRunning: 409,
    KeyReused: 409,
    TooLarge: 413,
    TooManySpans: 413,
    UnsupportedMedia: 415,
    WrongHost: 421,
    TooManyTries: 429,
    RateLimited: 429,
    BadSettings: 500,
    MissingExtra: 501,
    StoreError: 503,
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An answer that is none. `more` are members beside those of RFC 9457."""

    status: int
    code: str
    detail: str
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = MEDIA_TYPE

    def body(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "type": f"urn:handrail:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": self.request_id,
            **self.more,
        }


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem that an error is; of one that nobody raised on purpose it says nothing but the request's id."""
    if not isinstance(error, HandrailError):
        detail = f"something went wrong here; the server's log has it under request {request_id}"
        return Problem(status=500, code="bug", detail=detail, request_id=request_id)
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    return Problem(
        status=status,
        code=error.code,
        detail=_detail(error, status),
        request_id=request_id,
        headers=_headers_of(error, status),
    )


def _detail(error: HandrailError, status: int) -> str:
    """The error's text; what an error of the server says of folders and addresses stands in the log only."""
    match status:
        case 503:
            return "the store cannot be used right now; try again"
        case 500:
            return "the server is not set up for this; its log says what is missing"
        case _:
            return str(error)


def _headers_of(error: HandrailError, status: int) -> dict[str, str]:
    if isinstance(error, RateLimited):
        return {"retry-after": str(math.ceil(error.retry_after))}
    if isinstance(error, StillRunning):
        return {"retry-after": "2"}
    if status == 503:
        return {"retry-after": "1"}
    return {"www-authenticate": "Bearer"} if isinstance(error, WrongCredentials) else {}
