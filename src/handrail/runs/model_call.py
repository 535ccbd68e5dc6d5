"""One request to a model: held before it is sent, traced, and settled for what it used."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from handrail.fallback.retry import MalformedTwice
from handrail.kernel.money import ZERO
from handrail.traces import semconv
from handrail.traces.model import Usage

from .agent_loop import AgentLoop, RetryRequest
from .errors import CeilingReached
from .held_call import ModelCall
from .record import RunRecord
from .request_hold import HeldRequest, hold_request
from .settlement import Settlement, usage_attributes


@asynccontextmanager
async def model_call(
    record: RunRecord,
    loop: AgentLoop | None,
    model: Model,
    messages: Sequence[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> AsyncIterator[ModelCall]:
    """Holds one model request, traces it, and settles it if the block raises.

    Args:
        record: The run's record.
        loop: The agent's loop that sends the request; None for a request that no agent sends.
        model: The model to request.
        messages: The messages to send.
        settings: The request's settings, without those of the model.
        parameters: The request's tools, output and instructions.

    Yields:
        The call. The block sends it with the call's `settings`, and settles it with the response.

    Raises:
        CeilingReached: The request does not fit below a ceiling.
        MalformedTwice: The request is a retry, and the run has too little room left for its answer.
        StoreError: Nothing could be held, so nothing was sent.
    """
    record.begin_request(loop, model, settings, messages, parameters)
    retry = loop.retry if loop else None
    try:
        held = await hold_request(record, model, list(messages), settings, parameters)
    except CeilingReached as error:
        if retry is not None and error.refusal.unit == "output_tokens":
            raise _no_room(0, retry.output_tokens) from error
        raise
    new_messages = list(messages) if loop is None else loop.take_new_messages(messages)
    attributes = _span_attributes(record, model, settings, held, retry)
    with record.recorder.span(f"chat {model.model_name}", attributes) as span:
        span.payload["messages"] = new_messages
        settlement = Settlement(record, loop, span, model, held)
        if retry is not None and held.output_tokens < retry.output_tokens:
            settlement.release()
            record.withdraw_request()
            raise _no_room(held.output_tokens, retry.output_tokens)
        if loop is not None:
            loop.sent += 1
            loop.last_span_id = span.span_id
        # The provider must not generate more tokens than are held, and its client must not send the request again.
        limited: ModelSettings = {**settings, "max_tokens": held.output_tokens, "max_retries": 0}  # type: ignore[typeddict-item]
        try:
            yield ModelCall(record, loop, span, model, messages, limited, parameters, settlement)
        except BaseException as error:
            settlement.settle_failure(error)
            raise


def record_unsent(
    record: RunRecord,
    loop: AgentLoop,
    model: Model,
    messages: Sequence[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
    result: ModelResponse | Exception,
) -> None:
    """Records a request that a wrapper of the model answered itself, from a cache: nothing was sent, so it is free.

    Args:
        record: The run's record.
        loop: The agent's loop.
        model: The wrapper.
        messages: The messages of the request.
        settings: The request's settings, without those of the model.
        parameters: The request's tools, output and instructions.
        result: The response, or the error that was raised.
    """
    record.begin_request(loop, model, settings, messages, parameters)
    attributes = {
        semconv.OPERATION: "chat",
        semconv.PROVIDER: model.system,
        semconv.REQUEST_MODEL: model.model_name,
        semconv.FINGERPRINT: record.agent_hash,
        semconv.ATTEMPT: 1 if loop.retry is None else 2,
        semconv.RETRY_OF: loop.retry and loop.retry.retry_of,
        semconv.HELD: 0,
    }
    with record.recorder.span(f"chat {model.model_name}", attributes) as span:
        loop.last_span_id = span.span_id
        span.payload["messages"] = loop.take_new_messages(messages)
        if isinstance(result, Exception):
            span.fail(type(result).__qualname__)
            usage = Usage()
        else:
            span.payload["response"] = result.parts
            usage = Usage(input=result.usage.input_tokens, output=result.usage.output_tokens)
            loop.output_tokens = usage.output
        record.add_usage(usage, ZERO)
        span.set(usage_attributes(usage, ZERO))


def _no_room(left: int, needed: int) -> MalformedTwice:
    return MalformedTwice(
        f"no room for a retry: the rejected answer took {needed:,} output tokens, and the run has {left:,} left"
    )


def _span_attributes(
    record: RunRecord, model: Model, settings: Mapping[str, Any], held: HeldRequest, retry: RetryRequest | None
) -> Mapping[str, Any]:
    retry_of = retry and retry.retry_of
    return {
        semconv.OPERATION: "chat",
        semconv.PROVIDER: model.system,
        semconv.REQUEST_MODEL: model.model_name,
        semconv.ATTEMPT: 1 if retry_of is None else 2,
        semconv.RETRY_OF: retry_of,
        semconv.FINGERPRINT: record.agent_hash,
        semconv.HELD: held.amount.cost,
        semconv.HELD_INPUT: held.amount.input_tokens,
        semconv.HELD_OUTPUT: held.amount.output_tokens,
        semconv.UNBOUNDED: list(held.unbounded) or None,
        "gen_ai.request.temperature": settings.get("temperature"),
        "gen_ai.request.max_tokens": held.output_tokens,
    }
