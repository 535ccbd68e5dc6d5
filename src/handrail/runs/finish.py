"""How a model's response ended: whether it is whole, and if not, which fault that is."""

from typing import ClassVar

from pydantic_ai.messages import ModelResponse

LOCAL_PROVIDERS = frozenset({"function", "test", "builtin"})
"""Pydantic AI's function and test models, and the built-in one: no network lies between, and nothing is hidden."""


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


def incomplete_answer(response: ModelResponse, *, streamed: bool) -> IncompleteAnswer | None:
    """Why a response is not a whole answer; None if it is one.

    Args:
        response: The response.
        streamed: Whether it was streamed. The end of a stream without a finish reason cannot be told from a lost
            connection.
    """
    details = response.provider_details or {}
    raw = details.get("finish_reason")
    match response.finish_reason:
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
    if response.state in ("incomplete", "interrupted"):
        return OutputCut("the stream ended before the answer did")
    if streamed and ended_without_finish(response):
        return OutputCut("the stream ended without a finish reason, so the answer may be incomplete")
    return None


def ended_without_finish(response: ModelResponse) -> bool:
    """Whether a stream ended without a finish reason, which only a remote provider owes.

    Pydantic AI reports `stop` for a stream of OpenAI's format that had none; the provider's details tell.

    Args:
        response: The response of the stream.
    """
    if response.provider_name is None or response.provider_name in LOCAL_PROVIDERS:
        return False
    details = response.provider_details or {}
    refused = "refusal" in details
    return details.get("finish_reason") is None and not refused and (bool(details) or not response.finish_reason)
