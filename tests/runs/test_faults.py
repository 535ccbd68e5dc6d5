"""Which exceptions become outcomes, and under which code."""

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

from handrail.models.local.weights import ModelUnavailable
from handrail.runs.faults import ToolFault, fault_of, is_bug
from handrail.runs.loop_guard import Looping


def in_category(category: type[ModelRateLimitError | ModelContextWindowExceededError]) -> ModelHTTPError:
    """An error that Pydantic AI itself knows the kind of, whatever its status says."""
    return ModelHTTPError.for_category(category=category, status_code=400, model_name="m")


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
    (TimeoutError("slow"), "model_timeout"),
    (ConnectionResetError("gone"), "model_unavailable"),
    (ModelUnavailable("no model"), "model_unavailable"),
    (FallbackExceptionGroup("all", [ModelHTTPError(429, "m")]), "model_unavailable"),
    (ContentFilterError("no"), "content_filtered"),
    (UnexpectedModelBehavior("what"), "output_malformed"),
    (IncompleteToolCall("cut"), "output_malformed"),
    (UsageLimitExceeded("enough"), "usage_limit"),
    (Looping("again"), "looping"),
    (ToolFault("find", OSError("disk")), "tool_failed"),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda each: each if isinstance(each, str) else repr(each)[:40])
def test_codes(error: Exception, code: str) -> None:
    """Each expected failure has its own stable code, and says what it was."""
    fault = fault_of(error)
    assert fault is not None
    assert fault.code == code
    assert str(error) in fault.detail


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("x"), UserError("x"), RuntimeError("x")])
def test_what_is_no_fault(error: Exception) -> None:
    """An error that no model, tool or provider makes is not turned into an outcome."""
    assert fault_of(error) is None


def test_details_end() -> None:
    """A fault's detail is at most 2,000 characters, however much a provider says."""
    fault = fault_of(ModelAPIError("m", "x" * 10_000))
    assert fault is not None
    assert len(fault.detail) == 2_000


@pytest.mark.parametrize("kind", [TypeError, AttributeError, NameError, AssertionError, NotImplementedError])
def test_bugs(kind: type[Exception]) -> None:
    """What only wrong code raises is a bug, also in a tool."""
    assert is_bug(kind("x"))


@pytest.mark.parametrize("kind", [OSError, ValueError, LookupError, TimeoutError, RuntimeError])
def test_no_bugs(kind: type[Exception]) -> None:
    """What a tool's libraries raise when the world is not as hoped is no bug."""
    assert not is_bug(kind("x"))
