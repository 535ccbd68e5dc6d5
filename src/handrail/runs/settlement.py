"""Settles the hold of one model request: for what the response used, or for what it may have used.

What is not known is booked as what was held, and marked as estimated on the request's span.
"""

from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage

from handrail.ceilings.amounts import Amount
from handrail.ceilings.ledger import settle
from handrail.kernel.money import usd
from handrail.models.free_requests import is_free
from handrail.models.pricing import quote, reported_cost
from handrail.models.token_counts import checked_usage
from handrail.traces import semconv
from handrail.traces.model import Usage
from handrail.traces.recorder.recorder import LiveSpan

from .agent_loop import AgentLoop
from .finish import LOCAL_PROVIDERS, ended_without_finish
from .record import RunRecord
from .request_hold import HeldRequest


class Settlement:
    """The hold of one request, settled exactly once.

    Args:
        record: The run's record.
        loop: The agent's loop that sends the request; None for a request that no agent sends.
        span: The span of the request.
        model: The model that it is sent to.
        held: What is held for it, and the prices that were decided then.
    """

    def __init__(
        self, record: RunRecord, loop: AgentLoop | None, span: LiveSpan, model: Model, held: HeldRequest
    ) -> None:
        self._record = record
        self._loop = loop
        self._span = span
        self._model = model
        self._hold = held.hold
        self._quote = held.quote
        self.settled = False
        """Whether the hold is settled; from then on nothing changes."""

    def settle_response(self, response: ModelResponse) -> None:
        """Settles for a whole response and traces it.

        Args:
            response: The response, with the usage as the provider reports it.
        """
        if self.settled:
            return
        held = self._hold.amount
        checked = checked_usage(response.usage, held.input_tokens, held.output_tokens, has_content=bool(response.parts))
        # Without a known price nothing was held, so there is no ceiling on money. The model that answered may have one.
        prices = self._quote or quote(
            response.model_name or "", self._model.system, {}, self._record.runtime.settings.prices
        )
        self._span.set({"handrail.price.unknown": True if prices is None else None})
        cost = held.cost if prices is None else prices.cost(checked.usage, response.provider_details)
        self._describe(response)
        self._settle(_usage(checked.usage), Amount(cost, checked.usage.input_tokens, checked.usage.output_tokens))
        if checked.estimated:
            self._mark_estimated()
            if self._loop is not None:
                self._loop.output_tokens = _count_bytes(response)

    def settle_stream(self, response: ModelResponse) -> None:
        """Settles a stream that its reader has left without an error, perhaps before its end.

        Args:
            response: What arrived.
        """
        if response.state in ("complete", "suspended") and not ended_without_finish(response):
            self.settle_response(response)
        else:
            self.settle_partial(response)

    def settle_partial(self, response: ModelResponse) -> None:
        """Settles a stream that was left or broke off: for its input as reported, else as held, and for the output.

        A provider generates ahead of its reader, and may reason before its first visible word, so all that it was
        allowed to generate is booked. Only a local model stops with its reader: a token is at least one byte, so the
        bytes that arrived are booked.

        Args:
            response: What arrived.
        """
        if self.settled:
            return
        held = self._hold.amount
        reported = checked_usage(response.usage, held.input_tokens, 0, has_content=False).usage
        arrived = _count_bytes(response)
        stops = arrived > 0 and self._model.system in LOCAL_PROVIDERS
        output = min(arrived, held.output_tokens) if stops else held.output_tokens
        usage = Usage(input=reported.input_tokens, output=max(reported.output_tokens, output))
        cost = held.cost if self._quote is None else self._quote.max_cost(usage.input, usage.output)
        self._describe(response)
        self._settle(usage, Amount(cost, usage.input, usage.output))
        self._mark_estimated()

    def settle_failure(self, error: BaseException) -> None:
        """Settles a request that got no answer, unless it is settled already.

        It is free if it provably never reached the provider, or if the provider turned it down. Any other request may
        have been worked on in full, so it costs all that was held.

        Args:
            error: What the model raised, or what cancelled the request.
        """
        if self.settled:
            return
        if is_free(error, self._model):
            self._settle(Usage(), Amount())
            return
        held = self._hold.amount
        self._settle(Usage(input=held.input_tokens, output=held.output_tokens), held)
        self._mark_estimated()

    def release(self) -> None:
        """Gives back all that was held for a request that is not sent."""
        self._settle(Usage(), Amount())

    def _describe(self, response: ModelResponse) -> None:
        self._span.payload["response"] = response.parts
        reported = reported_cost(response.usage, response.provider_details)
        self._span.set(
            {
                semconv.RESPONSE_MODEL: response.model_name,
                "gen_ai.response.finish_reasons": [response.finish_reason] if response.finish_reason else None,
                "gen_ai.response.service_tier": (response.provider_details or {}).get("service_tier"),
                semconv.REPORTED_COST: None if reported is None else float(usd(reported)),
            }
        )

    def _mark_estimated(self) -> None:
        self._span.set({semconv.ESTIMATED: True})

    def _settle(self, usage: Usage, amount: Amount) -> None:
        self.settled = True
        if self._loop is not None:
            self._loop.output_tokens = usage.output
        self._record.settle(usage, amount.cost, settle(self._hold, amount))
        self._span.set(usage_attributes(usage, amount.cost))


def usage_attributes(usage: Usage, cost: int) -> dict[str, int | None]:
    """The attributes of a request's span for what it used.

    Args:
        usage: Its tokens.
        cost: Its cost, in nano-dollars.
    """
    return {
        semconv.INPUT_TOKENS: usage.input,
        semconv.OUTPUT_TOKENS: usage.output,
        semconv.CACHE_READ: usage.cache_read or None,
        semconv.CACHE_WRITE: usage.cache_write or None,
        semconv.COST: cost,
    }


def _usage(usage: RequestUsage) -> Usage:
    return Usage(
        input=usage.input_tokens,
        output=usage.output_tokens,
        cache_read=usage.cache_read_tokens,
        cache_write=usage.cache_write_tokens,
    )


def _count_bytes(response: ModelResponse) -> int:
    """The UTF-8 bytes of a response so far: text, thinking and the arguments of tool calls."""
    texts = [
        str(part.args or "") if isinstance(part, ToolCallPart) else str(getattr(part, "content", ""))
        for part in response.parts
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
