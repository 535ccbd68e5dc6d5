"""The price of a model request, decided once, when the request is held, in nano-dollars rounded up.

Prices are the operator's own or genai-prices'. The response only decides which of them applied, such as that of its
service tier. An unknown price is None: a ceiling on money then refuses the request.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import PriceOverride
from handrail.kernel.money import NanoUsd, nano_usd

from .rates import CostBound, Levels, RateCard, cost_bound, is_bounded, price_levels, rate_card
from .requested import STANDARD_TIERS, TIER, RequestedPricing, requested_pricing
from .token_counts import usage_counts

# The last two are Pydantic AI's function and test models.
FREE_PROVIDERS = frozenset({"builtin", "ollama", "function", "test"})
MODALITIES = frozenset({"text", "image", "audio", "video"})
"""What the input of a request can be."""
# Providers whose name in Pydantic AI differs from the one in the price table.
_TABLE_NAMES = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "google-gla": "google",
    "google-vertex": "google",
}
# Google Cloud reports what a request ran as under a name of its own.
_TRAFFIC_TIERS = {
    "ON_DEMAND": "default",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "default",
}
_MAX_REPORTED = Decimal(1_000_000)
"""Dollars. No request costs more, and the ledger could not add many."""

PriceOverrides = Mapping[str, PriceOverride]
"""Prices by `provider:model` or by `model`."""


@dataclass(frozen=True, eq=False)
class PriceVariant:
    """Prices that replace the standard ones where a response's details have all of these values."""

    when: Mapping[str, str]
    prices: Mapping[str, Levels]


@dataclass(frozen=True, eq=False)
class ModelRates:
    """A model's standard prices and their variants at one time."""

    provider: str | None
    """The provider's name in the price table; None for a price that is not from there."""
    standard: Mapping[str, Levels]
    variants: tuple[PriceVariant, ...] = ()
    """For each price, the first that applies counts."""

    @property
    def tiers(self) -> frozenset[str]:
        """The service tiers that have prices of their own."""
        return frozenset(tier for variant in self.variants if (tier := variant.when.get(TIER)))

    def card(self, context: Mapping[str, str]) -> RateCard:
        """The rates that apply to a request, by what its response says of how it was processed."""
        items = context.items()
        return _card(self, tuple(variant for variant in self.variants if variant.when.items() <= items))


@dataclass(frozen=True)
class Quote:
    """The prices that can apply to one request, decided when it is held."""

    rates: ModelRates
    tiers: frozenset[str]
    """The service tiers that the request asks for."""
    bound: CostBound

    def max_cost(self, input_tokens: int, output_tokens: int) -> NanoUsd:
        """The most that the request can cost, in nano-dollars; what is held for it.

        Args:
            input_tokens: The most input tokens that it can have.
            output_tokens: The most output tokens that it can have.
        """
        return nano_usd(self.bound.cost(input_tokens, output_tokens))

    def cost(self, usage: RequestUsage, details: Mapping[str, Any] | None = None) -> NanoUsd:
        """What the request cost, in nano-dollars; never negative, whatever the usage.

        Args:
            usage: What the response reports as used; its `input_tokens` include cached ones.
            details: The response's `provider_details`, with the service tier that applied. A request for a tier whose
                response names none costs the most that the tier, or the standard price, comes to.
        """
        details = details or {}
        counts = usage_counts(usage, details, self.rates.provider)
        context = {key: value for key, value in details.items() if key != TIER and isinstance(value, str)}
        tiers = self._applied_tiers(details)
        return nano_usd(max(self.rates.card({**context, TIER: tier}).cost(counts) for tier in tiers))

    def _applied_tiers(self, details: Mapping[str, Any]) -> Collection[str]:
        """The tiers, one of which applied."""
        tier = details.get(TIER)
        if tier is None or tier == "auto":
            tier = _TRAFFIC_TIERS.get(str(details.get("traffic_type")))
        if tier is None:
            return {"default", *self.tiers}
        if str(tier) in STANDARD_TIERS | self.rates.tiers:
            return {str(tier)}
        # A tier that the table does not have yet, such as one above priority.
        return {"default", *self.rates.tiers}


def quote(
    model: str,
    provider: str | None,
    settings: Mapping[str, Any],
    overrides: PriceOverrides | None = None,
    at: datetime | None = None,
    modalities: Collection[str] = MODALITIES,
    searches: int = 0,
) -> Quote | None:
    """The prices that can apply to a request.

    Args:
        model: The model that the request is sent to.
        provider: The model's provider, as its `system` in Pydantic AI.
        settings: The request's settings, merged with the model's.
        overrides: Prices that take precedence over the table's.
        at: When the request is made, for prices that change; now by default.
        modalities: What the input can be: text, image, audio or video.
        searches: The most searches or other paid calls that the provider can make for the request.

    Returns:
        The quote; None if a price that can apply is unknown, such as that of a service tier.
    """
    if override := _override(model, provider, overrides):
        return _quote(_override_rates(override), RequestedPricing(), frozenset(modalities), searches)
    if provider in FREE_PROVIDERS and not model.endswith("-cloud"):
        return _quote(_FREE, RequestedPricing(), frozenset(modalities), searches)
    minute = (at or datetime.now(UTC)).replace(second=0, microsecond=0)
    rates = _table_rates(model, _TABLE_NAMES.get(provider, provider) if provider else None, minute)
    if rates is None:
        return None
    asked = requested_pricing(model, rates.provider, settings)
    return _quote(rates, asked, frozenset(modalities), searches)


def reported_cost(usage: RequestUsage, details: Mapping[str, Any] | None = None) -> NanoUsd | None:
    """What the provider or a gateway says a request cost, in nano-dollars.

    Args:
        usage: The response's usage as its model returned it: an agent later puts an estimate of Pydantic AI's there.
        details: The response's `provider_details`, where OpenRouter's cost is. To a request with a key of one's own
            OpenRouter reports its fee and the provider's cost apart; both are paid.

    Returns:
        None if it says nothing, or nothing that can be an amount of money.
    """
    details = details or {}
    reported = _amount(details.get("cost"))
    if details.get("is_byok") is True and (upstream := _amount(details.get("upstream_inference_cost"))) is not None:
        return nano_usd((reported or Decimal(0)) + upstream)
    if reported is None:
        reported = _amount(usage.cost)
    if reported is None:
        # Other clients of OpenRouter keep the cost only if it is a whole number.
        reported = _amount(usage.details.get("cost"))
    return None if reported is None else nano_usd(reported)


def _amount(value: object) -> Decimal | None:
    if not isinstance(value, str | int | float | Decimal) or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value) if isinstance(value, float) else value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= _MAX_REPORTED else None


@lru_cache(maxsize=1024)
def _card(rates: ModelRates, variants: tuple[PriceVariant, ...]) -> RateCard:
    prices = dict(rates.standard)
    for variant in reversed(variants):
        prices.update(variant.prices)
    return rate_card(prices)


@lru_cache(maxsize=1024)
def _quote(rates: ModelRates, asked: RequestedPricing, modalities: frozenset[str], searches: int) -> Quote | None:
    if asked.is_unpriced([variant.when for variant in rates.variants]):
        return None
    possible = [variant.prices for variant in rates.variants if asked.allows(variant.when)]
    return Quote(rates, asked.tiers or frozenset(), cost_bound([rates.standard, *possible], modalities, searches))


def _override(model: str, provider: str | None, overrides: PriceOverrides | None) -> PriceOverride | None:
    overrides = overrides or {}
    return overrides.get(f"{provider}:{model}") or overrides.get(model)


@lru_cache(maxsize=512)
def _override_rates(price: PriceOverride) -> ModelRates:
    optional = {
        "cache_read_mtok": price.cache_read,
        "cache_write_mtok": price.cache_write,
        "cache_write_1h_mtok": price.cache_write_1h,
    }
    prices = ModelPrice(
        input_mtok=price.input,
        output_mtok=price.output,
        requests_kcount=1000 * price.request,
        web_searches_kcount=1000 * price.search,
        **{key: value for key, value in optional.items() if value is not None},
    )
    return ModelRates(None, price_levels(prices))


_FREE = ModelRates(None, {})


@lru_cache(maxsize=512)
def _table_rates(model: str, provider: str | None, minute: datetime) -> ModelRates | None:
    """The table's prices in a minute, which is also the cache's key, as some prices change with the time of day."""
    try:
        found = calc_price(Usage(), model, provider_id=provider, genai_request_timestamp=minute)
    except LookupError:
        return None
    standard = price_levels(found.model.get_prices(minute))
    if not is_bounded(standard):
        return None
    # As in calc_price, variants are those of the model's own provider, not of one that resells it.
    own = any(found.model is listed for listed in found.provider.models)
    variants = [
        PriceVariant(variant.when, price_levels(variant.prices))
        for variant in (found.model.price_variants if own else None) or ()
        if variant.constraint is None or variant.constraint.active(minute)
    ]
    return ModelRates(found.provider.id, standard, tuple(variants))
