"""Prices: what a request costs, and the most it may cost."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import Price
from handrail.kernel.money import ZERO, nano_usd
from handrail.models.pricing import PriceSheet, price_of, price_sheet

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
    price = price_of(model[1], model[0], usage, at=AT)
    assert price is not None
    return price


@given(models, usages())
def test_agrees_with_the_table(model: tuple[str, str], usage: RequestUsage) -> None:
    """A cost is what genai-prices says, rounded up."""
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
def test_cached_input_is_no_dearer(model: tuple[str, str], fresh: int, cached: int) -> None:
    """Input that the provider's cache serves costs no more than the same input read anew."""
    served = RequestUsage(input_tokens=fresh + cached, cache_read_tokens=cached)
    assert cost(model, served) <= cost(model, RequestUsage(input_tokens=fresh + cached))


def sheet(provider: str, model: str) -> PriceSheet:
    found = price_sheet(model, provider, at=AT)
    assert found is not None
    return found


@given(models, usages())
def test_worst_price_bounds_every_cost(model: tuple[str, str], usage: RequestUsage) -> None:
    """What a hold takes covers the cost, however the tokens are cached and however long the input is."""
    assert cost(model, usage) <= sheet(*model).worst(usage.input_tokens, usage.output_tokens)


def test_worst_price_counts_the_dearest_tier() -> None:
    """The hold for a long input takes the long context's cache write at priority, and the hour's cache where it is."""
    assert sheet("openai", "gpt-6.1-terra").worst(1_000_000, 0) == nano_usd(Decimal(5))
    assert sheet("anthropic", "claude-sonnet-5-5").worst(1_000_000, 0) == nano_usd(Decimal(4))


@pytest.mark.parametrize(("provider", "model"), [("builtin", "qwen2.5-coder-0.5b"), ("ollama", "qwen3:8b")])
def test_local_models_are_free(provider: str, model: str) -> None:
    """A model on the user's own machine costs nothing."""
    assert price_of(model, provider, RequestUsage(input_tokens=9_000, output_tokens=900)) == ZERO


@pytest.mark.parametrize(
    ("provider", "model"), [("anthropic", "no-such"), ("nowhere", "gpt-4o"), ("ollama", "x-cloud")]
)
def test_unknown_price(provider: str, model: str) -> None:
    """A price that nobody knows is None, for a cost and for a hold."""
    assert price_of(model, provider, RequestUsage(input_tokens=1)) is None
    assert price_sheet(model, provider) is None


@pytest.mark.parametrize("key", ["nowhere:mine", "mine"])
def test_own_price(key: str) -> None:
    """An operator's price is used by either name, before the table's; cached input costs as input where unset."""
    own = {key: Price(input=Decimal(2), output=Decimal(10), cache_read=Decimal("0.5"))}
    usage = RequestUsage(input_tokens=1000, cache_read_tokens=400, cache_write_tokens=100, output_tokens=10)
    assert price_of("mine", "nowhere", usage, own) == (500 + 100) * 2_000 + 400 * 500 + 10 * 10_000
    sheet_of_own = price_sheet("mine", "nowhere", own)
    assert sheet_of_own is not None
    assert sheet_of_own.worst(1000, 10) == 1000 * 2_000 + 10 * 10_000


def test_audio_is_priced_by_the_table() -> None:
    """A request with audio tokens takes the table's price for them."""
    usage = RequestUsage(input_tokens=1000, input_audio_tokens=1000, output_tokens=0)
    audio = price_of("gemini-2.5-flash", "google", usage, at=AT)
    text = price_of("gemini-2.5-flash", "google", RequestUsage(input_tokens=1000), at=AT)
    assert audio is not None
    assert text is not None
    assert audio > text
