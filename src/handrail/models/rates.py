"""Rates: what each kind of usage costs, and the most that a number of tokens can cost.

A kind is one of genai-prices' units, such as `cache_read_tokens`. Kinds lie within others: cached tokens are input
tokens too. What has a rate of its own is charged at that and not at the rate of the kind around it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from genai_prices.data_units import unit_data
from genai_prices.types import ModelPrice, TieredPrices

Levels = tuple[tuple[int, Decimal], ...]
"""Prices by rising threshold, the first at -1. The highest threshold that the input tokens exceed decides."""

_UNITS = {unit["price_key"]: (kind, unit) for kind, unit in unit_data.items()}
_BOUNDED_FAMILIES = frozenset({"tokens", "requests", "tool_calls"})


@dataclass(frozen=True)
class Rate:
    """The price of one kind of usage, in dollars for `per` units."""

    kind: str
    per: int
    levels: Levels
    apart: tuple[str, ...]
    """The kinds within this one that have rates of their own."""

    def price(self, input_tokens: int) -> Decimal:
        """The price in a request with this many input tokens."""
        return next(price for above, price in reversed(self.levels) if input_tokens > above)


@dataclass(frozen=True)
class RateCard:
    """All rates of a model under one set of conditions."""

    rates: tuple[Rate, ...]
    """Each after the kinds within it."""

    def cost(self, counts: Mapping[str, Decimal]) -> Decimal:
        """The cost of one request in dollars, as `genai_prices.calc_price` computes it.

        Args:
            counts: How much of each kind was used, none negative. Kinds that exceed the one around them, which
                genai-prices rejects, are charged in full.
        """
        input_tokens = int(counts.get("input_tokens", 0))
        charged: dict[str, Decimal] = {}
        total = Decimal(0)
        for rate in self.rates:
            count = counts.get(rate.kind, Decimal(0)) - sum(charged[kind] for kind in rate.apart)
            charged[rate.kind] = max(count, Decimal(0))
            total += charged[rate.kind] * rate.price(input_tokens) / rate.per
        return total


@dataclass(frozen=True)
class CostBound:
    """The most that a request can cost by its tokens, over several rate cards."""

    input: Levels
    """Dollars for one input token."""
    output: Levels
    """Dollars for one output token."""
    fees: Decimal
    """Dollars for the request itself and for what the provider's tools do in it."""

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Dollars for at most this many tokens."""
        highest_input = _at(self.input, input_tokens)
        return input_tokens * highest_input + output_tokens * _at(self.output, input_tokens) + self.fees


def cost_bound(prices: Collection[Mapping[str, Levels]], modalities: Collection[str], searches: int) -> CostBound:
    """The bound over all prices that can apply to a request.

    A token is charged at one of the listed prices, so the highest one bounds every mixture of them.

    Args:
        prices: The prices under each condition that can hold, by genai-prices' price key.
        modalities: What the input can be: text, image, audio or video. The output can be anything.
        searches: The most searches that the provider can make for the request.
    """
    listed = [(*_UNITS[key], levels) for price in prices for key, levels in price.items() if key in _UNITS]
    directions: dict[str, list[Levels]] = {"input": [], "output": []}
    request_fee = search_fee = Decimal(0)
    for kind, unit, levels in listed:
        dimensions = unit["dimensions"]
        highest = max(price for _, price in levels) / unit["per"]
        if dimensions["family"] == "tokens":
            direction = dimensions["direction"]
            if direction == "output" or dimensions.get("modality", "text") in modalities:
                directions[direction].append(tuple((above, price / unit["per"]) for above, price in levels))
        elif kind == "requests":
            request_fee = max(request_fee, highest)
        elif dimensions["family"] == "tool_calls":
            search_fee = max(search_fee, highest)
    return CostBound(_highest(directions["input"]), _highest(directions["output"]), request_fee + searches * search_fee)


def price_levels(prices: ModelPrice) -> dict[str, Levels]:
    """The prices that are listed, by genai-prices' price key."""
    return {
        key: ((-1, price.base), *((tier.start, tier.price) for tier in price.tiers))
        if isinstance(price, TieredPrices)
        else ((-1, price),)
        for key, price in vars(prices).items()
        if isinstance(price, TieredPrices | Decimal)
    }


def is_bounded(prices: Mapping[str, Levels]) -> bool:
    """Whether tokens bound the cost: false for a model that is sold only by the minute or the page."""
    families = {_UNITS[key][1]["dimensions"]["family"] for key in prices if key in _UNITS}
    return not families or bool(families & _BOUNDED_FAMILIES)


def rate_card(prices: Mapping[str, Levels]) -> RateCard:
    """Orders prices, by genai-prices' price key, so that they can be applied to usage."""
    units = {key: _UNITS[key] for key in prices if key in _UNITS}
    dimensions = {kind: unit["dimensions"].items() for kind, unit in units.values()}
    rates = [
        Rate(
            units[key][0],
            units[key][1]["per"],
            levels,
            tuple(kind for kind, items in dimensions.items() if dimensions[units[key][0]] < items),
        )
        for key, levels in prices.items()
        if key in units
    ]
    return RateCard(tuple(sorted(rates, key=lambda rate: (-len(dimensions[rate.kind]), rate.kind))))


def _highest(listed: Iterable[Levels]) -> Levels:
    steps = sorted({(above, price) for levels in listed for above, price in levels} | {(-1, Decimal(0))})
    highest = Decimal(0)
    result: dict[int, Decimal] = {}
    for above, price in steps:
        highest = result[above] = max(highest, price)
    return tuple(result.items())


def _at(levels: Levels, input_tokens: int) -> Decimal:
    return next(price for above, price in reversed(levels) if input_tokens > above)
