"""What a model request costs: genai-prices' table, or the operator's own prices, in nano-dollars rounded up.

`None` means that nobody knows the price; whoever guards a ceiling then refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, TieredPrices
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import Price
from handrail.kernel.money import NanoUsd, nano_usd

# The last two are Pydantic AI's models made of Python functions.
FREE_PROVIDERS = frozenset({"builtin", "ollama", "function", "test"})
_PER_MILLION = Decimal(1_000_000)
# How providers are called by Pydantic AI where the price table says it otherwise.
_SAME_PROVIDER = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "google-gla": "google",
    "google-vertex": "google",
}


OwnPrices = Mapping[str, Price]


class Rate(NamedTuple):
    """Dollars per million tokens, for requests of more than `above` input tokens."""

    above: int
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal


@dataclass(frozen=True)
class PriceSheet:
    """A model's prices: `rates` by rising threshold from 0. The last that a request passes prices all its tokens."""

    rates: tuple[Rate, ...]
    worst_input: Decimal
    """The dearest that a million input tokens may come to: the long-context tier, written to the 1 hour cache."""
    worst_output: Decimal

    def cost(self, usage: RequestUsage) -> Decimal:
        """Dollars for the text tokens of one request; `input_tokens` includes the cached ones."""
        rate = next(rate for rate in reversed(self.rates) if rate.above == 0 or usage.input_tokens > rate.above)
        long_writes = usage.cache_write_1h_tokens
        short_writes = max(usage.cache_write_tokens - long_writes, 0)
        plain = max(usage.input_tokens - usage.cache_read_tokens - short_writes - long_writes, 0)
        return (
            plain * rate.input
            + usage.cache_read_tokens * rate.cache_read
            + short_writes * rate.cache_write
            + long_writes * rate.cache_write_1h
            + usage.output_tokens * rate.output
        ) / _PER_MILLION

    def worst(self, input_tokens: int, output_tokens: int) -> NanoUsd:
        """The most that a text request of at most so many tokens may cost, for a hold."""
        return nano_usd((input_tokens * self.worst_input + output_tokens * self.worst_output) / _PER_MILLION)


def price_of(
    model: str, provider: str | None, usage: RequestUsage, own: OwnPrices | None = None, at: datetime | None = None
) -> NanoUsd | None:
    """The cost of one finished request, or None if the model's price is unknown.

    `model` and `provider` as a response names them; `own` prices go first, by `provider:model` or by `model`. `at` is
    when the request was made, for prices that change. Fees for searches and other provider tools are not in it.
    """
    sheet = price_sheet(model, provider, own, at)
    if sheet is None:
        return None
    if not _own_price(model, provider, own) and sheet is not FREE and _has_audio(usage):
        return nano_usd(calc_price(usage, model, provider_id=_table_name(provider)).total_price)
    return nano_usd(sheet.cost(usage))


def price_sheet(
    model: str, provider: str | None, own: OwnPrices | None = None, at: datetime | None = None
) -> PriceSheet | None:
    """A model's prices at a time (now, if not given), or None if nobody knows them."""
    if price := _own_price(model, provider, own):
        return _own_sheet(price)
    if provider in FREE_PROVIDERS and not model.endswith("-cloud"):
        return FREE
    moment = (at or datetime.now(UTC)).replace(second=0, microsecond=0)
    return _table_sheet(model, _table_name(provider), moment)


def _own_price(model: str, provider: str | None, own: OwnPrices | None) -> Price | None:
    own = own or {}
    return own.get(f"{provider}:{model}") or own.get(model)


def _own_sheet(price: Price) -> PriceSheet:
    read = price.input if price.cache_read is None else price.cache_read
    write = price.input if price.cache_write is None else price.cache_write
    rate = Rate(0, price.input, price.output, read, write, write)
    return PriceSheet((rate,), max(price.input, read, write), price.output)


FREE = _own_sheet(Price(input=Decimal(0), output=Decimal(0)))


def _table_name(provider: str | None) -> str | None:
    return _SAME_PROVIDER.get(provider, provider) if provider else None


@lru_cache(maxsize=512)
def _table_sheet(model: str, provider: str | None, minute: datetime) -> PriceSheet | None:
    """Kept by the minute, since some prices change with the time of day."""
    try:
        found = calc_price(Usage(), model, provider_id=provider, genai_request_timestamp=minute)
    except LookupError:
        return None
    price = found.model_price
    starts = sorted({0, *(tier.start for listed in _values(price) for tier in getattr(listed, "tiers", ()))})
    rates = tuple(_rate(price, start) for start in starts)
    dearer = [price, *(variant.prices for variant in found.model.price_variants or ())]
    return PriceSheet(
        rates,
        worst_input=max(_highest(dearer, "input"), *(max(rate[1], *rate[3:]) for rate in rates)),
        worst_output=max(_highest(dearer, "output"), *(rate.output for rate in rates)),
    )


def _rate(price: ModelPrice, start: int) -> Rate:
    def at(name: str, instead: Decimal) -> Decimal:
        listed = getattr(price, name)
        if isinstance(listed, TieredPrices):
            passed = [tier.price for tier in listed.tiers if tier.start <= start]
            return passed[-1] if passed else listed.base
        return instead if listed is None else Decimal(listed)

    plain = at("input_mtok", Decimal(0))
    write = at("cache_write_mtok", plain)
    return Rate(
        above=start,
        input=plain,
        output=at("output_mtok", Decimal(0)),
        cache_read=at("cache_read_mtok", plain),
        cache_write=at("cache_write_5m_mtok", write),
        cache_write_1h=at("cache_write_1h_mtok", write),
    )


def _highest(prices: Sequence[ModelPrice], direction: str) -> Decimal:
    """The highest price per million text tokens in a direction, over every kind of token and every tier."""
    kinds = {
        "input": ("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_5m_mtok", "cache_write_1h_mtok"),
        "output": ("output_mtok", "output_reasoning_mtok", "output_citation_mtok"),
    }[direction]
    listed = [value for price in prices for kind in kinds if (value := getattr(price, kind)) is not None]
    return max((amount for value in listed for amount in _amounts(value)), default=Decimal(0))


def _amounts(listed: Decimal | TieredPrices) -> list[Decimal]:
    return [listed.base, *(tier.price for tier in listed.tiers)] if isinstance(listed, TieredPrices) else [listed]


def _values(price: ModelPrice) -> list[Any]:
    return list(vars(price).values())


def _has_audio(usage: RequestUsage) -> bool:
    return bool(usage.input_audio_tokens or usage.output_audio_tokens or usage.cache_audio_read_tokens)
