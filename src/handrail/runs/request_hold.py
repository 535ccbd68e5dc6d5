"""Holds the most that one model request can cost, before it is sent.

The hold commits with what the run has to write anyway, the settlement with the run's next commit. If the process dies
in between, the hold stays in the ledger and counts as spent (see `record`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai.exceptions import ModelAPIError, UserError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import HoldRequest, LongConversation, Refusal
from handrail.ceilings.ledger import Hold, hold
from handrail.ceilings.token_bound import input_bound
from handrail.kernel.ids import new_id
from handrail.models.pricing import MODALITIES, Quote, quote
from handrail.models.unbounded import unbounded_parts

from .errors import CeilingReached
from .record import RunRecord

DEFAULT_OUTPUT_TOKENS = 4_096
"""The output limit of one request if neither the agent nor its model sets `max_tokens`. It is about half of a run's
default ceiling, so that a request that is never settled leaves room for another."""

_BOUNDED_MODALITIES = frozenset({"text", "image"})
"""What a request's input can be if it has a bound: audio and video have none, and prices of their own."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldRequest:
    """A request with its hold, and what was decided about it."""

    hold: Hold
    quote: Quote | None
    """The prices that can apply to it; None if they are unknown."""
    unbounded: tuple[str, ...]
    """What makes its cost unbounded, where the operator allows that."""

    @property
    def amount(self) -> Amount:
        """What is held."""
        return self.hold.amount

    @property
    def output_tokens(self) -> int:
        """What the request's maximum of output tokens has to be set to: no more is held."""
        return self.hold.output_tokens


async def hold_request(
    record: RunRecord,
    model: Model,
    messages: list[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> HeldRequest:
    """Holds by a cheap bound on the input; the provider counts the tokens only if that would mean a refusal.

    Args:
        record: The run's record.
        model: The model to request.
        messages: The messages to send.
        settings: The request's settings, without those of the model.
        parameters: The request's tools, output and instructions.

    Returns:
        The hold.

    Raises:
        CeilingReached: The request does not fit below a ceiling, or its cost has no bound.
        StoreError: Nothing could be held.
    """
    merged = {**(model.settings or {}), **settings}
    runtime = record.runtime
    bound = input_bound(messages, parameters, model)
    modalities = MODALITIES if bound.unbounded else _BOUNDED_MODALITIES
    prices, now = runtime.settings.prices, runtime.clock.now()
    quoted = quote(model.model_name, model.system, merged, prices, now, modalities)
    parts = unbounded_parts(model, merged, parameters, messages)
    unbounded = (*parts, *bound.unbounded)
    wanted = HoldRequest(
        run_id=record.request.run_id,
        user=record.request.user,
        tenant=record.request.tenant,
        input_tokens=bound.tokens,
        output_tokens=merged.get("max_tokens") or DEFAULT_OUTPUT_TOKENS,
        price=None if quoted is None else quoted.max_cost,
        unbounded=() if _allows_unbounded(record) else unbounded,
    )
    result = await _try_hold(record, wanted)
    if isinstance(result, Refusal) and result.unit != "output_tokens" and not parts:
        # The provider's count knows what a document comes to, but not what its own tools will read.
        counted = await _count_input(model, messages, settings, parameters)
        if counted is not None and (bound.unbounded or counted < bound.tokens):
            result, unbounded = await _try_hold(record, replace(wanted, input_tokens=counted, unbounded=())), ()
    if isinstance(result, Refusal):
        if result.scope == "run" and result.unit == "input_tokens":
            result = await _explain_history(record, result, model, messages, settings, parameters)
        raise _refused(record, result)
    return HeldRequest(result, quoted, unbounded)


def refuse_unbounded(record: RunRecord, what: str) -> None:
    """Refuses a paid operation that is no single request, unless there is no ceiling on money or it is allowed.

    Args:
        record: The run's record.
        what: The operation, for the error.

    Raises:
        CeilingReached: It is refused.
    """
    limits = record.runtime.limits
    has_ceiling = limits.user_day is not None or limits.tenant_month is not None
    if has_ceiling and not _allows_unbounded(record):
        raise CeilingReached(Refusal.of_unbounded((what,)))


def _allows_unbounded(record: RunRecord) -> bool:
    settings = record.runtime.settings.ceilings.agents.get(record.request.agent)
    return settings is not None and settings.unbounded == "allow"


async def _explain_history(
    record: RunRecord,
    refusal: Refusal,
    model: Model,
    messages: list[ModelMessage],
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
) -> Refusal:
    """The refusal, with the run's conversation if the request would fit without the messages of earlier runs."""
    history, own = record.history, messages[len(record.history) :]
    # Others that pass messages on, such as an agent in a tool or a history processor, need not start with the history.
    if not history or not own or messages[0] != history[0]:
        return refusal
    tokens = input_bound(own, parameters, model).tokens
    if tokens > refusal.fits:
        tokens = await _count_input(model, own, settings, parameters) or tokens
    assert refusal.requested is not None
    if tokens > refusal.fits:
        return refusal
    long = LongConversation(record.request.conversation_id, len(history), refusal.requested - tokens)
    return replace(refusal, scope="conversation", conversation=long)


def _refused(record: RunRecord, refusal: Refusal) -> CeilingReached:
    record.withdraw_request()
    with record.recorder.span("refuse", {"handrail.refusal": str(refusal)}) as span:
        span.fail(f"ceiling_{refusal.scope}")
    extra = {**record.log_fields, "scope": refusal.scope, "unit": refusal.unit}
    _logger.info("model request refused by a ceiling", extra=extra)
    return CeilingReached(refusal)


async def _try_hold(record: RunRecord, wanted: HoldRequest) -> Hold | Refusal:
    runtime, now = record.runtime, record.runtime.clock.now()
    results = await record.commit(*record.row_update(), hold(new_id("hold", now), wanted, runtime.limits, now))
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
