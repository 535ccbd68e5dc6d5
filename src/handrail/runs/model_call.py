"""One request to a model: held before it is sent, and settled by what it used.

The hold commits with what the run has to write anyway; the settlement waits for the run's next commit. A process that
dies in between leaves the hold, which then counts as spent.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import Ask, Refusal
from handrail.ceilings.ledger import Hold, hold, settle
from handrail.ceilings.token_bound import input_bound
from handrail.kernel.ids import new_id
from handrail.kernel.money import ZERO
from handrail.traces import semconv
from handrail.traces.model import Usage
from handrail.traces.recorder.recorder import LiveSpan

from .errors import CeilingReached
from .record import Record

CACHED = "handrail.cached"
"""In a response's `provider_details`: it was kept from before, and nobody is paid for it again."""
OUTPUT_TOKENS = 4_096
"""The longest answer to one request where neither the agent nor its model says: half of what a run may use by default,
so that a request whose end nobody learns of leaves room for another."""

# A connection that was never made carried no request.
_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "PoolTimeout", "UnsupportedProtocol"}
)


@asynccontextmanager
async def asking(
    record: Record,
    model: Model,
    messages: Sequence[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> AsyncIterator["Asking"]:
    """A span around one request to `model`, committed to before it is sent.

    Raises Looping, CeilingReached where the request does not fit, StoreError where nothing could be held.
    """
    record.loops.request()
    record.identify(model, settings, messages, parameters)
    record.requests += 1
    retry_of, instruction = record.next_is_retry()
    if instruction is not None:
        parameters = _stricter(parameters, messages, instruction)
    held = await _held(record, model, list(messages), settings, parameters)
    attributes = {
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
    with record.recorder.span(f"chat {model.model_name}", attributes) as live:
        live.payload["messages"] = record.not_yet_kept(messages)
        record.last_request = live.span_id
        forced: ModelSettings = {**settings, "max_tokens": held.output_tokens}  # type: ignore[typeddict-item]
        asked = Asking(record, live, model, held, forced, parameters)
        try:
            yield asked
        except BaseException as error:
            asked.broke(error)
            raise


class Asking:
    """A request under way: to be sent with `settings` and `parameters`, and booked once, by `answered` or `broke`."""

    def __init__(
        self,
        record: Record,
        live: LiveSpan,
        model: Model,
        held: Hold,
        settings: ModelSettings,
        parameters: ModelRequestParameters,
    ) -> None:
        self.settings = settings
        self.parameters = parameters
        self._record = record
        self._live = live
        self._model = model
        self._held = held
        self._booked = False

    def answered(self, response: ModelResponse) -> None:
        """Books the response's tokens and cost, and keeps what it said; without reported tokens, what was held."""
        used, held = response.usage, self._held.amount
        if not used.input_tokens and not used.output_tokens:
            self._book(Usage(input=held.input_tokens, output=held.output_tokens), held)
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
            # The hold was granted at a price, or with no ceiling on money; an answer from a model without one keeps it.
            cost = held.cost if price is None else price
            self._live.set({"handrail.price.unknown": True if price is None else None})
            self._book(usage, Amount(cost, usage.input, usage.output))
        self._live.payload["response"] = response.parts
        self._live.set(
            {
                semconv.RESPONSE_MODEL: response.model_name,
                "gen_ai.response.finish_reasons": [response.finish_reason] if response.finish_reason else None,
            }
        )

    def cut_off(self, response: ModelResponse) -> None:
        """Books a stream that ended before its time: the reported input or what was held for it, and what came.

        UTF-8 bytes bound the tokens of what came; where the provider counted more, its count stands.
        """
        held, used = self._held.amount, response.usage
        usage = Usage(
            input=used.input_tokens or held.input_tokens,
            output=min(max(used.output_tokens, _bytes_of(response)), max(used.output_tokens, held.output_tokens)),
        )
        price = self._record.runtime.price_bound(self._model.model_name, self._model.system)
        cost = held.cost if price is None else price(usage.input, usage.output)
        self._live.payload["response"] = response.parts
        self._book(usage, Amount(cost, usage.input, usage.output))

    def broke(self, error: BaseException) -> None:
        """Books a request without an answer: nothing where it was turned down or never sent, else all that was held.

        A request that was cancelled or cut off may have been worked on to its end, and then it is paid for.
        """
        if self._booked:
            return
        held = self._held.amount
        if isinstance(error, ModelHTTPError) or _never_sent(error):
            self._book(Usage(), Amount())
        else:
            self._book(Usage(input=held.input_tokens, output=held.output_tokens), held)

    def _book(self, usage: Usage, amount: Amount) -> None:
        self._booked = True
        self._record.book(usage, amount.cost, settle(self._held, amount))
        self._live.set(
            {
                semconv.INPUT_TOKENS: usage.input,
                semconv.OUTPUT_TOKENS: usage.output,
                semconv.CACHE_READ: usage.cache_read or None,
                semconv.CACHE_WRITE: usage.cache_write or None,
                semconv.COST: amount.cost,
            }
        )


async def _held(
    record: Record,
    model: Model,
    messages: list[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> Hold:
    """The hold for this request. The bound on its input is tightened before a refusal that it may be to blame for."""
    window = model.profile.get("context_window")
    bound = input_bound(messages, parameters)
    if window is not None:
        # What is longer is turned down by the model, unread.
        bound = window if bound is None else min(bound, window)
    found = await _hold(record, model, settings, bound)
    if isinstance(found, Refusal) and (bound is None or found.unit != "output_tokens"):
        counted = await _counted(model, messages, settings, parameters)
        if counted is not None and (bound is None or counted < bound):
            found = await _hold(record, model, settings, counted)
    if isinstance(found, Refusal):
        record.requests -= 1
        with record.recorder.span("refuse", {"handrail.refusal": str(found)}) as live:
            live.fail(f"ceiling_{found.scope}")
        raise CeilingReached(found)
    return found


async def _hold(record: Record, model: Model, settings: Mapping[str, Any], input_tokens: int | None) -> Hold | Refusal:
    wanted = settings.get("max_tokens") or (model.settings or {}).get("max_tokens") or OUTPUT_TOKENS
    runtime, request, now = record.runtime, record.request, record.runtime.clock.now()
    ask = Ask(
        run_id=request.run_id,
        user=request.user,
        tenant=request.tenant,
        input_tokens=input_tokens,
        output_tokens=wanted,
        price=runtime.price_bound(model.model_name, model.system),
    )
    results = await record.commit(*record.standing_ops(), hold(new_id("hold", now), ask, runtime.limits, now))
    found: Hold | Refusal = results[-1]
    return found


async def _counted(
    model: Model, messages: list[ModelMessage], settings: Mapping[str, Any], parameters: ModelRequestParameters
) -> int | None:
    """The provider's own count and a little more, since providers call it an estimate; None where it offers none."""
    try:
        counted = await model.count_tokens(messages, dict(settings), parameters)  # type: ignore[arg-type]
    except (NotImplementedError, UserError, ModelAPIError):
        return None
    return counted.input_tokens + counted.input_tokens // 50 + 16


def _stricter(
    parameters: ModelRequestParameters, messages: Sequence[ModelMessage], instruction: str
) -> ModelRequestParameters:
    parts = parameters.instruction_parts
    if parts is None:
        said = next(
            (m.instructions for m in reversed(messages) if isinstance(m, ModelRequest) and m.instructions), None
        )
        parts = [InstructionPart(said)] if said else []
    return replace(parameters, instruction_parts=[*parts, InstructionPart(instruction, dynamic=True)])


def _bytes_of(response: ModelResponse) -> int:
    """The bytes of what a response said so far: text, thinking and the arguments of calls."""
    said = [
        part.args_as_json_str() if isinstance(part, ToolCallPart) else str(getattr(part, "content", ""))
        for part in response.parts
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in said)


def _never_sent(error: BaseException) -> bool:
    passed: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in passed:
        if type(cause).__name__ in _NEVER_SENT:
            return True
        passed.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
