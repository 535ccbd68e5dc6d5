"""Which exceptions are expected faults, that become outcomes, and which are errors in a program, that propagate."""

from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ContentFilterError,
    FallbackExceptionGroup,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRetry,
    ModelTimeoutError,
    RunTimedOut,
    SkipToolExecution,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
)

from handrail.fallback.retry import MalformedTwice
from handrail.models.local.weights import ModelUnavailable

from .loop_guard import Looping
from .outcome import Fault


class ToolFault(Exception):
    """A tool could not do its work: what it raised is the cause."""

    def __init__(self, tool: str, error: Exception) -> None:
        super().__init__(f"{tool}: {type(error).__name__}: {error}")
        self.tool = tool


# Normal talk between tools, people and the model: none of these says that the tool broke.
TALK = (ApprovalRequired, CallDeferred, ModelRetry, SkipToolExecution, ToolFailed, ToolFailedError, ToolRetryError)

_BUGS = (
    AssertionError,
    AttributeError,
    BufferError,
    ImportError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
)
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ModelTimeoutError, "model_timeout"),
    (ModelConnectionError, "model_unavailable"),
    (ModelRateLimitError, "model_rate_limited"),
    (ModelQuotaExceededError, "model_quota"),
    (ModelContextWindowExceededError, "input_too_long"),
    (ModelAuthenticationError, "model_auth"),
    (ModelNotFoundError, "model_unknown"),
    (ModelRequestRejectedError, "model_rejected"),
    (ModelAPIError, "model_unavailable"),
    (ModelUnavailable, "model_unavailable"),
    (FallbackExceptionGroup, "model_unavailable"),
    (ContentFilterError, "content_filtered"),
    (UnexpectedModelBehavior, "output_malformed"),
    (UsageLimitExceeded, "usage_limit"),
    (RunTimedOut, "timed_out"),
    (Looping, "looping"),
    (MalformedTwice, "output_malformed"),
    # A tool's own are wrapped in ToolFault: what comes here was raised by a model's client.
    (TimeoutError, "model_timeout"),
    (OSError, "model_unavailable"),
)
# For models that give no more than the status; Pydantic AI's own name the kind of error.
_CODES_BY_STATUS = {
    400: "model_rejected",
    401: "model_auth",
    402: "model_quota",
    403: "model_auth",
    404: "model_unknown",
    408: "model_timeout",
    413: "input_too_long",
    422: "model_rejected",
    429: "model_rate_limited",
    504: "model_timeout",
}


def fault_of(error: Exception) -> Fault | None:
    """The fault an exception stands for, or None where it is a programming error and must propagate.

    A tool may raise anything its libraries do, so all it raises is a fault, except what only wrong code raises.
    """
    if isinstance(error, ToolFault):
        return Fault(code="tool_failed", detail=str(error))
    if type(error) is ModelHTTPError:
        return Fault(code=_CODES_BY_STATUS.get(error.status_code, "model_unavailable"), detail=_detail(error))
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Fault(code=code, detail=_detail(error))
    return None


def is_bug(error: Exception) -> bool:
    """Whether only wrong code raises this."""
    return isinstance(error, _BUGS)


def _detail(error: Exception) -> str:
    cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
    return f"{type(error).__name__}: {error}{cause}"[:2_000]
