"""Tells expected faults, which become outcomes, from programming errors, which propagate."""

from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ContentFilterError,
    FallbackExceptionGroup,
    IncompleteToolCall,
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
from handrail.models.errors import ModelUnavailable

from .finish import IncompleteAnswer
from .loop_guard import Looping
from .outcome import Fault
from .output_check import error_text


class ToolFault(Exception):
    """A tool failed, or a route or deps factory did; the exception that it raised is the cause."""

    def __init__(self, tool: str, error: Exception) -> None:
        super().__init__(f"{tool}: {type(error).__name__}: {error}")
        self.tool = tool


# How tools talk to the model and to people on purpose; none of these means that the tool failed.
TOOL_CONTROL_FLOW = (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    SkipToolExecution,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)

_MAX_DETAIL = 2_000
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
    (ContentFilterError, "output_filtered"),
    (IncompleteToolCall, "output_cut"),
    (UnexpectedModelBehavior, "output_malformed"),
    (UsageLimitExceeded, "usage_limit"),
    (RunTimedOut, "timed_out"),
    (Looping, "looping"),
    (MalformedTwice, "output_malformed"),
    # What tools and requests raise is wrapped, so this comes from the agent's instructions, validators or hooks.
    (OSError, "agent_failed"),
)
# For models that report nothing but the HTTP status; Pydantic AI's subclasses name the kind of error.
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


def fault_from(error: Exception) -> Fault | None:
    """The fault for an exception, or None if it is a programming error and must propagate.

    A tool may raise whatever its libraries raise, so any exception from a tool is a fault unless it is a bug.
    """
    if isinstance(error, IncompleteAnswer):
        return Fault(code=error.code, detail=_detail(error))
    if isinstance(error, ToolFault):
        return Fault(code="tool_failed", detail=str(error))
    if type(error) is ModelHTTPError:
        return Fault(code=_CODES_BY_STATUS.get(error.status_code, "model_unavailable"), detail=_detail(error))
    for error_type, code in _CODES:
        if isinstance(error, error_type):
            return Fault(code=code, detail=_detail(error))
    return None


def is_bug(error: Exception) -> bool:
    """Whether the exception is of a type that only incorrect code raises."""
    return isinstance(error, _BUGS)


def _detail(error: Exception) -> str:
    cause = error.__cause__
    of_cause = f" ({type(cause).__name__}: {error_text(cause)})" if isinstance(cause, Exception) else ""
    return f"{type(error).__name__}: {error_text(error)}{of_cause}"[:_MAX_DETAIL]
