"""One request to a model: held before it is sent, and settled for what it used.

The hold commits with what the run has to write anyway, the settlement with the run's next commit. If the process dies
in between, the hold stays in the ledger and counts as spent (see `record`).
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import HoldRequest, Refusal
from handrail.ceilings.ledger import Hold, hold, settle
from handrail.ceilings.token_bound import input_bound
from handrail.kernel.ids import new_id
from handrail.kernel.money import ZERO
from handrail.traces import semconv
from handrail.traces.model import Usage
from handrail.traces.recorder.recorder import LiveSpan

from .errors import CeilingReached
from .record import RetryRequest, RunRecord

CACHED = "handrail.cached"
"""The key in `provider_details` of a response that came from a response cache and costs nothing."""
DEFAULT_OUTPUT_TOKENS = 4_096
"""The output limit of one request if neither the agent nor its model sets `max_tokens`. It is about half of a run's
default ceiling, so that a request that is never settled leaves room for another."""

# Errors of connections that were never made, by class name: such a request costs nothing.
_NEVER_SENT_ERRORS = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "PoolTimeout", "UnsupportedProtocol"}
)
_logger = logging.getLogger(__name__)


@asynccontextmanager
async def model_call(
    record: RunRecord,
    model: Model,
    messages: Sequence[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> AsyncIterator["ModelCall"]:
    """Holds one model request, traces it, and settles it if the block raises.

    Args:
        record: The run's record.
        model: The model to request.
        messages: The messages to send.
        settings: The request's settings, without those of the model.
        parameters: The request's tools, output and instructions.

    Yields:
        The call. The block sends it with the call's `settings` and `parameters`, and settles it with the response.

    Raises:
        Looping: The run has made MAX_REQUESTS requests.
        CeilingReached: The request does not fit below a ceiling.
        StoreError: Nothing could be held, so nothing was sent.
    """
    retry = record.begin_request(model, settings, messages, parameters)
    if retry is not None:
        _log_retry(record, model)
        parameters = _add_instruction(parameters, messages, retry.instruction)
    held = await _hold(record, model, list(messages), settings, parameters)
    attributes = _span_attributes(record, model, settings, held, retry)
    with record.request_span(f"chat {model.model_name}", attributes, messages) as span:
        # The provider must not generate more tokens than are held.
        limited: ModelSettings = {**settings, "max_tokens": held.output_tokens}  # type: ignore[typeddict-item]
        call = ModelCall(record, span, model, held, limited, parameters)
        try:
            yield call
        except BaseException as error:
            call.settle_failure(error)
            raise


class ModelCall:
    """A request with its hold: it is sent with `settings` and `parameters`, and settled exactly once."""

    def __init__(
        self,
        record: RunRecord,
        span: LiveSpan,
        model: Model,
        held: Hold,
        settings: ModelSettings,
        parameters: ModelRequestParameters,
    ) -> None:
        self.settings = settings
        self.parameters = parameters
        self._record = record
        self._span = span
        self._model = model
        self._hold = held
        self._settled = False

    def settle_response(self, response: ModelResponse) -> None:
        """Settles for the response's tokens and cost and traces it; if it reports no tokens, for what was held."""
        used, held = response.usage, self._hold.amount
        if not used.input_tokens and not used.output_tokens:
            self._settle(Usage(input=held.input_tokens, output=held.output_tokens), held)
        else:
            usage = Usage(
                input=used.input_tokens,
                output=used.output_tokens,
                cache_read=used.cache_read_tokens,
                cache_write=used.cache_write_tokens,
            )
            name = response.model_name or self._model.model_name
            cached = (response.provider_details or {}).get(CACHED)
            price = ZERO if cached else self._record.runtime.price(name, self._model.system, used)
            # A model may answer under a name without a known price. The hold was granted at the requested model's
            # price (or with no ceiling on money), so that is what the answer costs.
            cost = held.cost if price is None else price
            self._span.set({"handrail.price.unknown": True if price is None else None})
            self._settle(usage, Amount(cost, usage.input, usage.output))
        self._span.payload["response"] = response.parts
        self._span.set(
            {
                semconv.RESPONSE_MODEL: response.model_name,
                "gen_ai.response.finish_reasons": [response.finish_reason] if response.finish_reason else None,
            }
        )

    def settle_partial(self, response: ModelResponse) -> None:
        """Settles a stream that was cut off: for its input as reported, else as held, and for the output so far.

        A token is at least one byte, so the UTF-8 bytes received bound the output; a higher count by the provider wins.
        """
        held, used = self._hold.amount, response.usage
        usage = Usage(
            input=used.input_tokens or held.input_tokens,
            output=min(max(used.output_tokens, _count_bytes(response)), max(used.output_tokens, held.output_tokens)),
        )
        price = self._record.runtime.price_bound(self._model.model_name, self._model.system)
        cost = held.cost if price is None else price(usage.input, usage.output)
        self._span.payload["response"] = response.parts
        self._settle(usage, Amount(cost, usage.input, usage.output))

    def settle_failure(self, error: BaseException) -> None:
        """Settles a request that got no answer, unless it is settled already.

        A request that was rejected or never sent costs nothing. Any other, even one that was cancelled or lost its
        connection, may have been served in full, so it costs all that was held.
        """
        if self._settled:
            return
        held = self._hold.amount
        if isinstance(error, ModelHTTPError) or _was_never_sent(error):
            self._settle(Usage(), Amount())
        else:
            self._settle(Usage(input=held.input_tokens, output=held.output_tokens), held)

    def _settle(self, usage: Usage, amount: Amount) -> None:
        self._settled = True
        self._record.settle(usage, amount.cost, settle(self._hold, amount))
        self._span.set(
            {
                semconv.INPUT_TOKENS: usage.input,
                semconv.OUTPUT_TOKENS: usage.output,
                semconv.CACHE_READ: usage.cache_read or None,
                semconv.CACHE_WRITE: usage.cache_write or None,
                semconv.COST: amount.cost,
            }
        )


async def _hold(
    record: RunRecord,
    model: Model,
    messages: list[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> Hold:
    """Holds by a cheap bound on the input; the provider counts the tokens only if that would mean a refusal."""
    window = model.profile.get("context_window")
    bound = input_bound(messages, parameters)
    if window is not None:
        # A model rejects a request beyond its context window without reading it.
        bound = window if bound is None else min(bound, window)
    result = await _try_hold(record, model, settings, bound)
    if isinstance(result, Refusal) and (bound is None or result.unit != "output_tokens"):
        counted = await _count_input(model, messages, settings, parameters)
        if counted is not None and (bound is None or counted < bound):
            result = await _try_hold(record, model, settings, counted)
    if isinstance(result, Refusal):
        record.withdraw_request()
        with record.recorder.span("refuse", {"handrail.refusal": str(result)}) as span:
            span.fail(f"ceiling_{result.scope}")
        _log_refusal(record, result)
        raise CeilingReached(result)
    return result


async def _try_hold(
    record: RunRecord, model: Model, settings: Mapping[str, Any], input_tokens: int | None
) -> Hold | Refusal:
    max_output = settings.get("max_tokens") or (model.settings or {}).get("max_tokens") or DEFAULT_OUTPUT_TOKENS
    runtime, request, now = record.runtime, record.request, record.runtime.clock.now()
    hold_request = HoldRequest(
        run_id=request.run_id,
        user=request.user,
        tenant=request.tenant,
        input_tokens=input_tokens,
        output_tokens=max_output,
        price=runtime.price_bound(model.model_name, model.system),
    )
    results = await record.commit(*record.row_update(), hold(new_id("hold", now), hold_request, runtime.limits, now))
    result: Hold | Refusal = results[-1]
    return result


async def _count_input(
    model: Model, messages: list[ModelMessage], settings: Mapping[str, Any], parameters: ModelRequestParameters
) -> int | None:
    """The provider's count plus a margin, since providers call it an estimate; None if it cannot count."""
    try:
        counted = await model.count_tokens(messages, dict(settings), parameters)  # type: ignore[arg-type]
    except (NotImplementedError, UserError, ModelAPIError):
        return None
    return counted.input_tokens + counted.input_tokens // 50 + 16


def _add_instruction(
    parameters: ModelRequestParameters, messages: Sequence[ModelMessage], instruction: str
) -> ModelRequestParameters:
    parts = parameters.instruction_parts
    if parts is None:
        # The agent's instructions are then only in the messages, and parts replace those, so they are repeated as one.
        latest = (m.instructions for m in reversed(messages) if isinstance(m, ModelRequest) and m.instructions)
        parts = [InstructionPart(text) for text in latest][:1]
    return replace(parameters, instruction_parts=[*parts, InstructionPart(instruction, dynamic=True)])


def _span_attributes(
    record: RunRecord, model: Model, settings: Mapping[str, Any], held: Hold, retry: RetryRequest | None
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
        "gen_ai.request.temperature": settings.get("temperature"),
        "gen_ai.request.max_tokens": held.output_tokens,
    }


def _log_refusal(record: RunRecord, refusal: Refusal) -> None:
    extra = {**record.log_fields, "scope": refusal.scope, "unit": refusal.unit}
    _logger.info("model request refused by a ceiling", extra=extra)


def _log_retry(record: RunRecord, model: Model) -> None:
    extra = {**record.log_fields, "model": model.model_name}
    _logger.info("malformed output retried with a stricter instruction", extra=extra)


def _count_bytes(response: ModelResponse) -> int:
    """The UTF-8 bytes of a response so far: text, thinking and the arguments of tool calls."""
    texts = [
        part.args_as_json_str() if isinstance(part, ToolCallPart) else str(getattr(part, "content", ""))
        for part in response.parts
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _was_never_sent(error: BaseException) -> bool:
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        if type(cause).__name__ in _NEVER_SENT_ERRORS:
            return True
        visited.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
