"""What a provider charges for a request: genai-prices' table by the requested model, or prices made up by a test.

It shares no code with `handrail.models.pricing`, so that tests can compare the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from genai_prices import Usage, calc_price

from handrail.kernel.money import NanoUsd, nano_usd

from .answer import TokenUsage

_PER_MILLION = Decimal(1_000_000)
_SEARCH_FEE = Decimal("0.01")

InventedPrices = Mapping[str, tuple[Decimal | float | int, Decimal | float | int]]
"""Dollars per million input and output tokens, by model."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What the provider charges for one request."""

    model: str
    """The model that was asked for."""
    input_tokens: int
    """All input tokens, those read from and written to the cache included."""
    cache_read_tokens: int
    """Input tokens read from the cache."""
    cache_write_tokens: int
    """Input tokens written to the cache, those kept for an hour included."""
    cache_write_1h_tokens: int
    """Input tokens written to the cache for an hour."""
    output_tokens: int
    """All output tokens, reasoning included, over all choices."""
    reasoning_tokens: int
    """Output tokens of reasoning, shown or hidden."""
    web_searches: int
    """Searches of the provider's own web search."""
    service_tier: str
    """The tier that the request was served at."""
    speed: str
    """Anthropic's inference speed: `standard` or `fast`."""
    cost: NanoUsd
    """The charge in nano-dollars, rounded up."""


def knows_model(provider_id: str, model: str, prices: InventedPrices) -> bool:
    """Whether a provider has a price, and so a model."""
    if model in prices:
        return True
    try:
        calc_price(Usage(), model, provider_id=provider_id)
    except LookupError:
        return False
    return True


def bill_for(
    provider_id: str, model: str, usage: TokenUsage, service_tier: str, speed: str, prices: InventedPrices
) -> Bill:
    """The bill for a request.

    Args:
        provider_id: The provider's id in genai-prices' table.
        model: The model that was asked for.
        usage: What it used.
        service_tier: The tier that it was served at.
        speed: Anthropic's inference speed.
        prices: Prices of invented models: the same for all input tokens however cached and for every tier, and a
            cent for a search.

    Raises:
        LookupError: The model has no price.
    """
    if model in prices:
        input_price, output_price = (Decimal(str(price)) for price in prices[model])
        tokens_cost = (usage.input_tokens * input_price + usage.output_tokens * output_price) / _PER_MILLION
        cost = tokens_cost + usage.web_searches * _SEARCH_FEE
    else:
        counted = Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_tokens=usage.output_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
            web_searches=usage.web_searches,
        )
        context = {"service_tier": service_tier, "speed": speed}
        cost = calc_price(counted, model, provider_id=provider_id, price_context=context).total_price
    return Bill(
        model=model,
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        web_searches=usage.web_searches,
        service_tier=service_tier,
        speed=speed,
        cost=nano_usd(cost),
    )
