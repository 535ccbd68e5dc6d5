"""How a model's response ended: whether it is whole, and if not, which fault that is."""

from collections.abc import Collection
from typing import ClassVar

from pydantic_ai.messages import FinishReason, ModelResponse

LOCAL_PROVIDERS = frozenset({"function", "test", "builtin"})
"""Pydantic AI's function and test models, and the built-in one: no network lies between, and nothing is hidden."""
_FAILED = frozenset({"error", "failed"})
_NEVER_TELLS = "snowflake"
"""A provider that sends no finish reason with some of its models."""


class IncompleteAnswer(Exception):
    """A model's response is not a whole answer; none of it is used."""

    code: ClassVar[str]


class OutputCut(IncompleteAnswer):
    """The response was cut off, by a limit on its length or by the end of its stream."""

    code = "output_cut"


class OutputFiltered(IncompleteAnswer):
    """The provider's content filter removed the response, or a part of it."""

    code = "output_filtered"


class OutputRefused(IncompleteAnswer):
    """The model declined to answer."""

    code = "output_refused"


class ResponseFailed(IncompleteAnswer):
    """The provider reports that it failed while it generated the response."""

    code = "model_unavailable"


def incomplete_answer(response: ModelResponse, seen: Collection[FinishReason] = ()) -> IncompleteAnswer | None:
    """Why a response is not a whole answer; None if it is one.

    A remote provider says when a response is whole. One that ends for a reason that nobody knows, or for none, is not
    taken for whole: a lost connection looks the same. A model of one's own is believed unless it says otherwise.

    Args:
        response: The response.
        seen: The finish reasons that its stream had at any time; the worst of them counts.
    """
    for reason in (*seen, response.finish_reason):
        if (fault := _fault_of(reason, response)) is not None:
            return fault
    if response.state in ("incomplete", "interrupted"):
        return OutputCut("the stream ended before the answer did")
    if not _is_remote(response) or (response.finish_reason is not None and not _hides_missing_reason(response)):
        return None
    raw = (response.provider_details or {}).get("finish_reason")
    if raw is None:
        return OutputCut("the provider gave no finish reason, so the answer may be incomplete")
    return OutputCut(f"the answer ended for a reason that is not known to mean that it is whole: {str(raw)[:50]!r}")


def _fault_of(reason: FinishReason | None, response: ModelResponse) -> IncompleteAnswer | None:
    details = response.provider_details or {}
    raw = details.get("finish_reason")
    match reason:
        case "length":
            return OutputCut(
                f"the answer was cut off at the limit of the request, after {response.usage.output_tokens:,} output "
                "tokens: raise the agent's `max_tokens`, or the run's ceiling on output tokens"
            )
        case "content_filter" if raw == "refusal" or "refusal" in details:
            return OutputRefused(f"the model declined to answer: {details.get('refusal') or 'it gave no reason'}")
        case "content_filter":
            return OutputFiltered("the provider's content filter stopped the answer")
        case "error":
            return ResponseFailed("the provider failed while it generated the answer")
        case None if str(raw).lower() in _FAILED:
            return ResponseFailed("the provider failed while it generated the answer")
    return None


def ended_without_finish(response: ModelResponse) -> bool:
    """Whether a remote provider's response ended without a finish reason.

    Args:
        response: The response.
    """
    return _is_remote(response) and (response.finish_reason is None or _hides_missing_reason(response))


def _is_remote(response: ModelResponse) -> bool:
    return response.provider_name is not None and response.provider_name not in LOCAL_PROVIDERS


def _hides_missing_reason(response: ModelResponse) -> bool:
    """Whether Pydantic AI put `stop` where a response in OpenAI's format had no finish reason; its details tell."""
    details = response.provider_details or {}
    told = "finish_reason" in details or "refusal" in details
    return response.finish_reason == "stop" and bool(details) and not told and response.provider_name != _NEVER_TELLS
