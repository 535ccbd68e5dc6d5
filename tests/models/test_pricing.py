"""Prices: the cost of a request and its maximum."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import PriceOverride
from handrail.kernel.money import ZERO, nano_usd
from handrail.models.pricing import PriceSheet, price_sheet, request_cost

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODELS = [
    ("anthropic", "claude-sonnet-5-5"),
    ("anthropic", "claude-opus-4-8"),
    ("openai", "gpt-6.1-terra"),
    ("openai", "gpt-4o"),
    ("google", "gemini-2.5-pro"),
    ("deepseek", "deepseek-chat"),
]
models = st.sampled_from(MODELS)
tokens = st.integers(0, 500_000)


@st.composite
def usages(draw: st.DrawFn) -> RequestUsage:
    plain, read, write, long_write = draw(tokens), draw(tokens), draw(tokens), draw(tokens)
    return RequestUsage(
        input_tokens=plain + read + write + long_write,
        cache_read_tokens=read,
        cache_write_tokens=write + long_write,
        cache_write_1h_tokens=long_write,
        output_tokens=draw(tokens),
    )


def cost(model: tuple[str, str], usage: RequestUsage) -> int:
    price = request_cost(model[1], model[0], usage, at=AT)
    assert price is not None
    return price


@given(models, usages())
def test_agrees_with_the_table(model: tuple[str, str], usage: RequestUsage) -> None:
    """A cost is the one of genai-prices, rounded up."""
    counts = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
    }
    table = calc_price(Usage(**counts), model[1], provider_id=model[0], genai_request_timestamp=AT)
    assert cost(model, usage) == nano_usd(table.total_price)


@given(models, usages(), tokens, tokens)
def test_more_tokens_cost_no_less(model: tuple[str, str], usage: RequestUsage, more_in: int, more_out: int) -> None:
    """A cost is never negative, and more input or output never makes a request cheaper."""
    larger = RequestUsage(
        input_tokens=usage.input_tokens + more_in,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens + more_out,
    )
    assert 0 <= cost(model, usage) <= cost(model, larger)


@given(models, tokens, tokens)
def test_cached_input_costs_no_more(model: tuple[str, str], fresh: int, cached: int) -> None:
    """Input that the provider's cache serves costs no more than the same input read without it."""
    cached_usage = RequestUsage(input_tokens=fresh + cached, cache_read_tokens=cached)
    assert cost(model, cached_usage) <= cost(model, RequestUsage(input_tokens=fresh + cached))


def sheet(provider: str, model: str) -> PriceSheet:
    prices = price_sheet(model, provider, at=AT)
    assert prices is not None
    return prices


@given(models, usages())
def test_max_cost_bounds_every_cost(model: tuple[str, str], usage: RequestUsage) -> None:
    """The maximum cost covers the cost with any cached tokens and any length of input."""
    assert cost(model, usage) <= sheet(*model).max_cost(usage.input_tokens, usage.output_tokens)


def test_max_cost_uses_the_most_expensive_tier() -> None:
    """The maximum cost of a long input uses the long-context tier, priority processing and the one-hour cache."""
    assert sheet("openai", "gpt-6.1-terra").max_cost(1_000_000, 0) == nano_usd(Decimal(5))
    assert sheet("anthropic", "claude-sonnet-5-5").max_cost(1_000_000, 0) == nano_usd(Decimal(4))


@pytest.mark.parametrize(("provider", "model"), [("builtin", "qwen2.5-coder-0.5b"), ("ollama", "qwen3:8b")])
def test_local_models_are_free(provider: str, model: str) -> None:
    """A model on the user's own machine costs nothing."""
    assert request_cost(model, provider, RequestUsage(input_tokens=9_000, output_tokens=900)) == ZERO


@pytest.mark.parametrize(
    ("provider", "model"), [("anthropic", "no-such"), ("nowhere", "gpt-4o"), ("ollama", "x-cloud")]
)
def test_unknown_price(provider: str, model: str) -> None:
    """An unknown price is None, for a cost and for a hold."""
    assert request_cost(model, provider, RequestUsage(input_tokens=1)) is None
    assert price_sheet(model, provider) is None


@pytest.mark.parametrize("key", ["nowhere:mine", "mine"])
def test_price_override(key: str) -> None:
    """An override applies under either name and before the table; a missing cache price is the input price."""
    overrides = {key: PriceOverride(input=Decimal(2), output=Decimal(10), cache_read=Decimal("0.5"))}
    usage = RequestUsage(input_tokens=1000, cache_read_tokens=400, cache_write_tokens=100, output_tokens=10)
    assert request_cost("mine", "nowhere", usage, overrides) == (500 + 100) * 2_000 + 400 * 500 + 10 * 10_000
    overridden = price_sheet("mine", "nowhere", overrides)
    assert overridden is not None
    assert overridden.max_cost(1000, 10) == 1000 * 2_000 + 10 * 10_000


def test_audio_is_priced_by_the_table() -> None:
    """A request with audio tokens has the table's price for them."""
    usage = RequestUsage(input_tokens=1000, input_audio_tokens=1000, output_tokens=0)
    audio = request_cost("gemini-2.5-flash", "google", usage, at=AT)
    text = request_cost("gemini-2.5-flash", "google", RequestUsage(input_tokens=1000), at=AT)
    assert audio is not None
    assert text is not None
    assert audio > text
