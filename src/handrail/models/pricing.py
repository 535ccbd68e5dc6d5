"""The cost of model requests, by the operator's price overrides or genai-prices' table, in nano-dollars rounded up.

A price of None is unknown: a ceiling on money then refuses the request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, TieredPrices
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import PriceOverride
from handrail.kernel.money import NanoUsd, nano_usd

# The last two are Pydantic AI's function and test models.
FREE_PROVIDERS = frozenset({"builtin", "ollama", "function", "test"})
_PER_MILLION = Decimal(1_000_000)
# Providers whose name in Pydantic AI differs from the one in the price table.
_TABLE_NAMES = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "google-gla": "google",
    "google-vertex": "google",
}

PriceOverrides = Mapping[str, PriceOverride]
"""Prices by `provider:model` or by `model`."""


class TierPrices(NamedTuple):
    """Dollars per million tokens, for requests with more than `above` input tokens."""

    above: int
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal

    @property
    def max_input(self) -> Decimal:
        """The highest price of an input token, however it is cached."""
        return max(self.input, self.cache_read, self.cache_write, self.cache_write_1h)


@dataclass(frozen=True)
class PriceSheet:
    """A model's prices, in dollars per million tokens."""

    tiers: tuple[TierPrices, ...]
    """By rising threshold, the first at 0. The highest tier that a request exceeds prices all of its tokens."""
    max_input_price: Decimal
    """The highest price of input tokens, such as that of the long-context tier written to the one-hour cache."""
    max_output_price: Decimal
    """The highest price of output tokens."""

    def cost(self, usage: RequestUsage) -> Decimal:
        """The cost of one request's text tokens, in dollars.

        Args:
            usage: The request's tokens; its `input_tokens` include cached ones.
        """
        tier = next(tier for tier in reversed(self.tiers) if tier.above == 0 or usage.input_tokens > tier.above)
        long_writes = usage.cache_write_1h_tokens
        short_writes = max(usage.cache_write_tokens - long_writes, 0)
        plain = max(usage.input_tokens - usage.cache_read_tokens - short_writes - long_writes, 0)
        return (
            plain * tier.input
            + usage.cache_read_tokens * tier.cache_read
            + short_writes * tier.cache_write
            + long_writes * tier.cache_write_1h
            + usage.output_tokens * tier.output
        ) / _PER_MILLION

    def max_cost(self, input_tokens: int, output_tokens: int) -> NanoUsd:
        """The most that a text request may cost, in nano-dollars; what is held for it.

        Args:
            input_tokens: The most input tokens that it may have.
            output_tokens: The most output tokens that it may have.
        """
        return nano_usd((input_tokens * self.max_input_price + output_tokens * self.max_output_price) / _PER_MILLION)


def request_cost(
    model: str,
    provider: str | None,
    usage: RequestUsage,
    overrides: PriceOverrides | None = None,
    at: datetime | None = None,
) -> NanoUsd | None:
    """The cost of one finished request. Providers' fees for their own tools, such as web search, are not included.

    Args:
        model: The model as the response names it.
        provider: The provider as the response names it.
        usage: The request's tokens.
        overrides: Prices that take precedence over the table's.
        at: When the request was made, for prices that change; now by default.

    Returns:
        Nano-dollars, or None if the price is unknown.
    """
    sheet = price_sheet(model, provider, overrides, at)
    if sheet is None:
        return None
    if not _override(model, provider, overrides) and sheet is not FREE and _has_audio(usage):
        return nano_usd(calc_price(usage, model, provider_id=_table_name(provider)).total_price)
    return nano_usd(sheet.cost(usage))


def price_sheet(
    model: str, provider: str | None, overrides: PriceOverrides | None = None, at: datetime | None = None
) -> PriceSheet | None:
    """A model's prices.

    Args:
        model: The model as a response names it.
        provider: The provider as a response names it.
        overrides: Prices that take precedence over the table's.
        at: When the prices apply; now by default.

    Returns:
        The prices, or None if they are unknown.
    """
    if price := _override(model, provider, overrides):
        return _sheet_of(price)
    if provider in FREE_PROVIDERS and not model.endswith("-cloud"):
        return FREE
    minute = (at or datetime.now(UTC)).replace(second=0, microsecond=0)
    return _table_sheet(model, _table_name(provider), minute)


def _override(model: str, provider: str | None, overrides: PriceOverrides | None) -> PriceOverride | None:
    overrides = overrides or {}
    return overrides.get(f"{provider}:{model}") or overrides.get(model)


def _sheet_of(price: PriceOverride) -> PriceSheet:
    read = price.input if price.cache_read is None else price.cache_read
    write = price.input if price.cache_write is None else price.cache_write
    tier = TierPrices(0, price.input, price.output, read, write, write)
    return PriceSheet((tier,), max(price.input, read, write), price.output)


FREE = _sheet_of(PriceOverride(input=Decimal(0), output=Decimal(0)))


def _table_name(provider: str | None) -> str | None:
    return _TABLE_NAMES.get(provider, provider) if provider else None


@lru_cache(maxsize=512)
def _table_sheet(model: str, provider: str | None, minute: datetime) -> PriceSheet | None:
    """The table's prices in a minute, which is also the cache's key, as some prices change with the time of day."""
    try:
        calculation = calc_price(Usage(), model, provider_id=provider, genai_request_timestamp=minute)
    except LookupError:
        return None
    price = calculation.model_price
    starts = sorted({0, *(tier.start for value in vars(price).values() for tier in getattr(value, "tiers", ()))})
    tiers = tuple(_tier(price, start) for start in starts)
    variants = [price, *(variant.prices for variant in calculation.model.price_variants or ())]
    return PriceSheet(
        tiers,
        max_input_price=max(_highest(variants, "input"), *(tier.max_input for tier in tiers)),
        max_output_price=max(_highest(variants, "output"), *(tier.output for tier in tiers)),
    )


def _tier(price: ModelPrice, start: int) -> TierPrices:
    def price_of(name: str, default: Decimal) -> Decimal:
        listed = getattr(price, name)
        if isinstance(listed, TieredPrices):
            exceeded = [tier.price for tier in listed.tiers if tier.start <= start]
            return exceeded[-1] if exceeded else listed.base
        return default if listed is None else Decimal(listed)

    plain = price_of("input_mtok", Decimal(0))
    write = price_of("cache_write_mtok", plain)
    return TierPrices(
        above=start,
        input=plain,
        output=price_of("output_mtok", Decimal(0)),
        cache_read=price_of("cache_read_mtok", plain),
        cache_write=price_of("cache_write_5m_mtok", write),
        cache_write_1h=price_of("cache_write_1h_mtok", write),
    )


def _highest(prices: Sequence[ModelPrice], direction: str) -> Decimal:
    """The highest price per million text tokens in a direction, over every token type and every tier."""
    price_names = {
        "input": ("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_5m_mtok", "cache_write_1h_mtok"),
        "output": ("output_mtok", "output_reasoning_mtok", "output_citation_mtok"),
    }[direction]
    listed = [value for price in prices for name in price_names if (value := getattr(price, name)) is not None]
    return max((amount for value in listed for amount in _amounts(value)), default=Decimal(0))


def _amounts(listed: Decimal | TieredPrices) -> list[Decimal]:
    return [listed.base, *(tier.price for tier in listed.tiers)] if isinstance(listed, TieredPrices) else [listed]


def _has_audio(usage: RequestUsage) -> bool:
    return bool(usage.input_audio_tokens or usage.output_audio_tokens or usage.cache_audio_read_tokens)
