"""The codes of exceptions that become faults."""

import pytest
from pydantic_ai.exceptions import (
    ContentFilterError,
    FallbackExceptionGroup,
    IncompleteToolCall,
    ModelAPIError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UserError,
)

from handrail.models.errors import ModelUnavailable
from handrail.runs.faults import ToolFault, fault_from, is_bug
from handrail.runs.loop_guard import Looping

CODES = [
    (ModelHTTPError(400, "m"), "model_rejected"),
    (ModelHTTPError(401, "m"), "model_auth"),
    (ModelHTTPError(402, "m"), "model_quota"),
    (ModelHTTPError(403, "m"), "model_auth"),
    (ModelHTTPError(404, "m"), "model_unknown"),
    (ModelHTTPError(408, "m"), "model_timeout"),
    (ModelHTTPError(413, "m"), "input_too_long"),
    (ModelHTTPError(429, "m"), "model_rate_limited"),
    (ModelHTTPError(500, "m"), "model_unavailable"),
    (ModelHTTPError(503, "m"), "model_unavailable"),
    (ModelHTTPError(529, "m"), "model_unavailable"),
    (ModelHTTPError.for_category(category=ModelRateLimitError, status_code=400, model_name="m"), "model_rate_limited"),
    (
        ModelHTTPError.for_category(category=ModelContextWindowExceededError, status_code=400, model_name="m"),
        "input_too_long",
    ),
    (ModelAPIError("m", "gone"), "model_unavailable"),
    (ModelConnectionError("m", "refused"), "model_unavailable"),
    (ModelTimeoutError("m", "slow"), "model_timeout"),
    (TimeoutError("slow"), "agent_failed"),
    (ConnectionResetError("gone"), "agent_failed"),
    (ModelUnavailable("no model"), "model_unavailable"),
    (FallbackExceptionGroup("all", [ModelHTTPError(429, "m")]), "model_unavailable"),
    (ContentFilterError("no"), "output_filtered"),
    (UnexpectedModelBehavior("what"), "output_malformed"),
    (IncompleteToolCall("cut"), "output_cut"),
    (UsageLimitExceeded("enough"), "usage_limit"),
    (Looping("again"), "looping"),
    (ToolFault("find", OSError("disk")), "tool_failed"),
]


@pytest.mark.parametrize(
    ("error", "code"), CODES, ids=lambda value: value if isinstance(value, str) else repr(value)[:40]
)
def test_codes(error: Exception, code: str) -> None:
    """Each expected failure has a stable code and the error's text as its detail."""
    fault = fault_from(error)
    assert fault is not None
    assert fault.code == code
    assert str(error) in fault.detail


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("x"), UserError("x"), RuntimeError("x")])
def test_other_exceptions(error: Exception) -> None:
    """An exception that no model, tool or provider raises does not become an outcome."""
    assert fault_from(error) is None


def test_details_are_shortened() -> None:
    """A fault's detail has at most 2,000 characters, however long the provider's message is."""
    fault = fault_from(ModelAPIError("m", "x" * 10_000))
    assert fault is not None
    assert len(fault.detail) == 2_000


@pytest.mark.parametrize("error_type", [TypeError, AttributeError, NameError, AssertionError, NotImplementedError])
def test_bugs(error_type: type[Exception]) -> None:
    """Exceptions that only incorrect code raises are bugs, also in a tool."""
    assert is_bug(error_type("x"))


@pytest.mark.parametrize("error_type", [OSError, ValueError, LookupError, TimeoutError, RuntimeError])
def test_exceptions_that_are_not_bugs(error_type: type[Exception]) -> None:
    """Exceptions that libraries raise for outside reasons are not bugs."""
    assert not is_bug(error_type("x"))
