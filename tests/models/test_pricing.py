"""Prices: one decision for a request, which bounds what it can cost and gives what it did cost."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_ai.usage import RequestUsage

from handrail.config.settings import PriceOverride
from handrail.kernel.money import ZERO, nano_usd
from handrail.models.pricing import Quote, quote, reported_cost

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
PROVIDERS = ("openai", "anthropic", "google", "perplexity", "openrouter")
LISTED = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    if provider.id in PROVIDERS
    for model in provider.models
]
# Models with long-context tiers, service tiers, a fast mode, prices for audio, images, reasoning, requests or searches.
SPECIAL = [
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-opus-4-8"),
    ("anthropic", "claude-opus-5-5"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-3.8-flash-tts"),
    ("openai", "gpt-4o-audio-preview"),
    ("openai", "gpt-5.1"),
    ("openai", "gpt-6.1-terra"),
    ("openrouter", "mistralai/mistral-large-4-0"),
    ("perplexity", "perplexity/sonar"),
    ("perplexity", "sonar-deep-research"),
    ("perplexity", "sonar-pro"),
]
models = st.sampled_from(LISTED) | st.sampled_from(SPECIAL)
tokens = st.integers(0, 300_000)
TIERS = ("default", "priority", "flex", "fast")


@st.composite
def usages(draw: st.DrawFn) -> RequestUsage:
    """Usage that a provider can report: parts never exceed their whole."""
    plain, audio, read, write, long_write = (draw(tokens) for _ in range(5))
    text, spoken, thought = draw(tokens), draw(tokens), draw(tokens)
    return RequestUsage(
        input_tokens=plain + audio + read + write + long_write,
        input_audio_tokens=audio,
        cache_read_tokens=read,
        cache_write_tokens=write + long_write,
        cache_write_1h_tokens=long_write,
        output_tokens=text + spoken + thought,
        output_audio_tokens=spoken,
        output_reasoning_tokens=thought,
        web_searches=draw(st.integers(0, 5)),
    )


def quoted(provider: str, model: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Quote:
    found = quote(model, provider, settings or {}, at=AT, **options)
    assert found is not None, (provider, model)
    return found


def conditions(provider: str, model: str) -> list[dict[str, str]]:
    """What a response can say of how it was processed, as far as the model's prices depend on it."""
    _, info = get_snapshot().find_provider_model(model, None, provider, None)
    return [{}, *(variant.when for variant in info.price_variants or ())]


def table_cost(provider: str, model: str, usage: RequestUsage, details: Mapping[str, str]) -> int:
    price = calc_price(usage, model, provider_id=provider, genai_request_timestamp=AT, price_context=details)
    return nano_usd(price.total_price)


@given(models, usages(), st.data())
def test_a_cost_is_the_price_tables(model: tuple[str, str], usage: RequestUsage, data: st.DataObject) -> None:
    """A cost is the one that genai-prices computes under the conditions that applied, rounded up."""
    found = quote(model[1], model[0], {}, at=AT)
    assume(found is not None)
    assert found is not None
    details = data.draw(st.sampled_from(conditions(*model)))
    assert found.cost(usage, details) == table_cost(*model, usage, details)


def test_every_listed_model_is_priced_as_in_the_table() -> None:
    """Every model of five providers costs what genai-prices says, with each kind of token."""
    usage = RequestUsage(
        input_tokens=250_000,
        cache_read_tokens=50_000,
        cache_write_tokens=30_000,
        cache_write_1h_tokens=10_000,
        output_tokens=9_000,
        output_reasoning_tokens=4_000,
    )
    known = [(provider, model) for provider, model in LISTED if quote(model, provider, {}, at=AT) is not None]
    assert len(known) > 900
    for provider, model in known:
        assert quoted(provider, model).cost(usage) == table_cost(provider, model, usage, {}), model


def settings_of(details: Mapping[str, str]) -> list[dict[str, Any]]:
    """Settings under which a response can have these details."""
    fast: dict[str, Any] = {"extra_body": {"speed": "fast"}} if details.get("speed") == "fast" else {}
    tier = details.get("service_tier", "default")
    named = [{"openai_service_tier": tier}] if tier == "fast" else [{"service_tier": tier}]
    # Whoever asks for a better or a cheaper tier can get the standard one.
    standard = [{"service_tier": asked} for asked in ("priority", "flex")] if tier == "default" else []
    return [{**fast, **setting} for setting in [{}, {"service_tier": "auto"}, *named, *standard]]


@given(models, usages(), tokens, tokens, st.data())
def test_a_hold_covers_every_cost(
    model: tuple[str, str], usage: RequestUsage, more_in: int, more_out: int, data: st.DataObject
) -> None:
    """No request with at most the held tokens costs more than was held, whatever applied to it."""
    details = data.draw(st.sampled_from([when for when in conditions(*model) if "processing" not in when]))
    settings = data.draw(st.sampled_from(settings_of(details)))
    found = quote(model[1], model[0], settings, at=AT, searches=5)
    assume(found is not None)
    assert found is not None
    held = found.max_cost(usage.input_tokens + more_in, usage.output_tokens + more_out)
    assert ZERO <= found.cost(usage, details) <= held


numbers = st.integers() | st.floats() | st.none() | st.decimals() | st.booleans()
names = st.sampled_from(["priority", "ON_DEMAND", "default", "fast", "no-such", ""])
anything = numbers | names | st.tuples(names) | st.fixed_dictionaries({"web_search_requests": numbers})


@given(
    models | st.just(("", "own")),
    st.dictionaries(
        st.sampled_from(
            [
                "input_tokens",
                "output_tokens",
                "cache_read_tokens",
                "cache_write_tokens",
                "cache_write_1h_tokens",
                "output_reasoning_tokens",
                "input_audio_tokens",
                "cache_audio_read_tokens",
                "web_searches",
                "audio_seconds",
            ]
        ),
        numbers,
    ),
    st.dictionaries(st.sampled_from(["web_search_requests", "num_search_queries", "citation_tokens"]), numbers),
    st.dictionaries(st.sampled_from(["service_tier", "speed", "server_tool_use", "traffic_type", "cost"]), anything),
)
def test_no_usage_is_a_credit(
    model: tuple[str, str], counts: dict[str, Any], more: dict[str, Any], details: dict[str, Any]
) -> None:
    """Whatever a response reports, its cost is an amount of money that the ledger can add, never below zero."""
    overrides = {"own": PriceOverride(input=Decimal(1_000_000), output=Decimal(3), request=Decimal(1))}
    found = quote(model[1], model[0], {"service_tier": "flex"}, overrides, AT)
    assume(found is not None)
    assert found is not None
    assert 0 <= found.cost(RequestUsage(details=more, **counts), details) < 2**63
    reported = reported_cost(RequestUsage(details=more, **counts), details)
    assert reported is None or 0 <= reported < 2**63


GPT_USAGE = RequestUsage(input_tokens=100_000, cache_read_tokens=50_000, output_tokens=10_000)


@pytest.mark.parametrize(
    ("tier", "dollars"), [("default", "0.16875"), ("priority", "0.3375"), ("flex", "0.084375"), (None, "0.16875")]
)
def test_service_tiers(tier: str | None, dollars: str) -> None:
    """A request costs the price of the service tier that its response names, the standard price without one."""
    details = {"service_tier": tier} if tier else None
    assert quoted("openai", "gpt-5.1").cost(GPT_USAGE, details) == nano_usd(Decimal(dollars))


@pytest.mark.parametrize(
    ("settings", "dollars"),
    [
        ({}, "4.5"),
        ({"service_tier": "auto"}, "4.5"),
        ({"service_tier": "default"}, "2.25"),
        ({"service_tier": "flex"}, "2.25"),
        ({"service_tier": "priority"}, "4.5"),
        ({"openai_service_tier": "fast"}, "4.5"),
        ({"service_tier": "flex", "extra_body": {"service_tier": "priority"}}, "4.5"),
    ],
)
def test_held_tiers(settings: dict[str, Any], dollars: str) -> None:
    """A hold is for the most expensive tier that the settings leave open; the standard one is always open."""
    assert quoted("openai", "gpt-5.1", settings).max_cost(1_000_000, 100_000) == nano_usd(Decimal(dollars))


@pytest.mark.parametrize(
    ("asked", "details", "dollars"),
    [
        ("priority", {}, "0.3375"),
        ("priority", {"service_tier": None}, "0.3375"),
        ("priority", {"service_tier": "auto"}, "0.3375"),
        ("priority", {"service_tier": "default"}, "0.16875"),
        ("flex", {}, "0.16875"),
        ("default", {}, "0.16875"),
        ("default", {"service_tier": "tomorrow"}, "0.3375"),
        ("default", {"service_tier": ["priority"]}, "0.3375"),
    ],
)
def test_unnamed_tier(asked: str, details: dict[str, Any], dollars: str) -> None:
    """Where a response does not say which tier applied, or names an unknown one, the most expensive is booked."""
    cost = quoted("openai", "gpt-5.1", {"service_tier": asked}).cost(GPT_USAGE, details)
    assert cost == nano_usd(Decimal(dollars))


@pytest.mark.parametrize(
    ("details", "dollars"),
    [
        ({"service_tier": "standard"}, "9.5"),
        ({"service_tier": "priority"}, "17.1"),
        ({"traffic_type": "ON_DEMAND"}, "9.5"),
        ({"traffic_type": "ON_DEMAND_FLEX"}, "4.75"),
        ({"traffic_type": "ON_DEMAND_PRIORITY"}, "17.1"),
    ],
)
def test_google_tiers(details: dict[str, str], dollars: str) -> None:
    """Both of Google's APIs name the tier that applied, each in its own way."""
    usage = RequestUsage(input_tokens=1_000_000, output_tokens=1_000_000)
    settings = {"google_cloud_service_tier": "pt_then_priority"}
    assert quoted("google-cloud", "gemini-3.8-flash-tts", settings).cost(usage, details) == nano_usd(Decimal(dollars))


@pytest.mark.parametrize(
    ("provider", "model", "settings"),
    [
        ("openai", "gpt-5.1", {"openai_service_tier": "ultrafast"}),
        ("google", "gemini-2.5-pro", {"service_tier": "priority"}),
        ("openrouter", "openai/gpt-5.1", {"service_tier": "priority"}),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", {"bedrock_service_tier": {"type": "priority"}}),
        ("anthropic", "claude-opus-4-7", {"anthropic_speed": "fast"}),
        ("anthropic", "no-such", {}),
        ("nowhere", "gpt-4o", {}),
        ("ollama", "x-cloud", {}),
        ("openai", "whisper-1", {}),
    ],
)
def test_unknown_price(provider: str, model: str, settings: dict[str, Any]) -> None:
    """There is no quote for an unknown model, nor for one whose asked tier or mode has no known price."""
    assert quote(model, provider, settings, at=AT) is None


@pytest.mark.parametrize(
    ("provider", "model", "settings"),
    [
        ("anthropic", "claude-sonnet-5-5", {"service_tier": "priority", "anthropic_speed": "fast"}),
        ("mistral", "mistral-large-latest", {"service_tier": "priority"}),
    ],
)
def test_ignored_settings(provider: str, model: str, settings: dict[str, Any]) -> None:
    """A setting that Pydantic AI does not send to a provider changes no price."""
    assert quoted(provider, model, settings).bound == quoted(provider, model).bound


def test_a_later_price_takes_the_place_of_an_earlier_one() -> None:
    """A price that starts on a date, of a tier as well, applies from that date on and not before."""
    usage = RequestUsage(input_tokens=1_000_000, output_tokens=1_000_000)
    before, after = (
        quote("gemini-3.8-flash-tts", "google", {}, at=datetime(year, 11, 1, tzinfo=UTC)) for year in (2026, 2027)
    )
    assert before is not None
    assert after is not None
    assert before.cost(usage) == nano_usd(Decimal("9.5"))
    assert after.cost(usage, {"service_tier": "priority"}) == nano_usd(Decimal("34.2"))
    assert after.max_cost(1_000_000, 1_000_000) == nano_usd(Decimal("34.2"))


def test_fast_mode() -> None:
    """Anthropic's fast mode is held if it is asked for, and booked if it ran."""
    usage = RequestUsage(input_tokens=100_000, output_tokens=10_000)
    standard, fast = quoted("anthropic", "claude-opus-5-5"), {"anthropic_speed": "fast"}
    asked = quoted("anthropic", "claude-opus-5-5", fast)
    assert standard.max_cost(100_000, 10_000) == nano_usd(Decimal("0.8") + Decimal("0.2"))
    assert asked.max_cost(100_000, 10_000) == nano_usd(Decimal("1.6") + Decimal("0.4"))
    assert asked.cost(usage, {"speed": "fast"}) == nano_usd(Decimal("0.8") + Decimal("0.4"))
    assert asked.cost(usage) == nano_usd(Decimal("0.4") + Decimal("0.2"))


def test_cache_writes() -> None:
    """Writes to the five-minute and the one-hour cache have different prices."""
    usage = RequestUsage(
        input_tokens=100_000,
        cache_read_tokens=10_000,
        cache_write_tokens=50_000,
        cache_write_1h_tokens=30_000,
        output_tokens=1_000,
    )
    # 40,000 plain at $2, 10,000 read at $0.1, 20,000 written at $2.5, 30,000 for an hour at $4, output at $10.
    assert quoted("anthropic", "claude-sonnet-5-5").cost(usage) == nano_usd(Decimal("0.261"))


def test_long_context_is_held_only_where_it_can_apply() -> None:
    """A hold takes the price of a long-context tier if its input can exceed the tier's threshold."""
    gemini = quoted("google", "gemini-2.5-pro")
    assert gemini.max_cost(200_000, 1_000) == nano_usd(Decimal("0.25") + Decimal("0.01"))
    assert gemini.max_cost(200_001, 1_000) == nano_usd(Decimal("0.5000025") + Decimal("0.015"))


def test_modalities_of_the_input() -> None:
    """The price of audio is held for unless the input is known to have none."""
    flash = quoted("google", "gemini-2.5-flash")
    text = quoted("google", "gemini-2.5-flash", modalities=frozenset({"text", "image"}))
    assert flash.max_cost(1_000_000, 0) == nano_usd(Decimal(1))
    assert text.max_cost(1_000_000, 0) == nano_usd(Decimal("0.3"))
    assert text.cost(RequestUsage(input_tokens=1_000_000, input_audio_tokens=1_000_000)) == nano_usd(Decimal(1))


def test_fee_for_each_request() -> None:
    """A fee for each request is part of its hold and of its cost."""
    sonar = quoted("perplexity", "sonar")
    assert sonar.cost(RequestUsage(input_tokens=1_000, output_tokens=1_000)) == nano_usd(Decimal("0.014"))
    assert sonar.max_cost(1_000, 1_000) == nano_usd(Decimal("0.014"))


def test_fees_for_searches() -> None:
    """Each web search costs its fee, and is held for if it can happen."""
    usage = RequestUsage(input_tokens=1_000, web_searches=3, details={"web_search_requests": 8})
    assert quoted("openai", "gpt-5.1").cost(usage) == nano_usd(Decimal("0.03125"))
    without, with_searches = quoted("openai", "gpt-5.1"), quoted("openai", "gpt-5.1", searches=3)
    assert with_searches.max_cost(1_000, 0) - without.max_cost(1_000, 0) == nano_usd(Decimal("0.03"))


def test_searches_by_openrouter() -> None:
    """OpenRouter's own count of searches is paid for at its fee."""
    usage, details = RequestUsage(input_tokens=1_000), {"server_tool_use": {"web_search_requests": 3}}
    found = quoted("openrouter", "openai/gpt-6-sol")
    assert found.cost(usage, details) - found.cost(usage) == nano_usd(Decimal("0.03"))


def test_perplexity_by_an_openai_client() -> None:
    """Reasoning, citations and searches that Perplexity counts apart from its output are paid at their prices."""
    details = {"reasoning_tokens": 5_000, "citation_tokens": 3_000, "num_search_queries": 10}
    usage = RequestUsage(input_tokens=1_000, output_tokens=2_000, details=details)
    # $2 for input, $8 for output, $3 for reasoning, $2 for citations, $5 for a thousand searches.
    assert quoted("perplexity", "sonar-deep-research").cost(usage) == nano_usd(Decimal("0.089"))


@pytest.mark.parametrize(("provider", "model"), [("builtin", "qwen2.5-coder-0.5b"), ("ollama", "qwen3:8b")])
def test_local_models_are_free(provider: str, model: str) -> None:
    """A model on the user's own machine costs nothing."""
    free = quoted(provider, model, {"service_tier": "priority"})
    assert free.cost(RequestUsage(input_tokens=9_000, output_tokens=900)) == ZERO
    assert free.max_cost(9_000, 900) == ZERO


@pytest.mark.parametrize("key", ["openai:gpt-4o", "gpt-4o"])
def test_own_price(key: str) -> None:
    """An own price applies under either name, before the table, in every tier; cache prices have defaults."""
    own = {key: PriceOverride(input=Decimal(2), output=Decimal(10), cache_read=Decimal("0.5"))}
    found = quote("gpt-4o", "openai", {"openai_service_tier": "ultrafast"}, own, AT)
    assert found is not None
    usage = RequestUsage(input_tokens=1000, cache_read_tokens=400, cache_write_tokens=100, output_tokens=10)
    assert found.cost(usage, {"service_tier": "priority"}) == 600 * 2_000 + 400 * 500 + 10 * 10_000
    assert found.max_cost(1000, 10) == 1000 * 2_000 + 10 * 10_000


def test_own_price_in_full() -> None:
    """An own price can have a price for each kind of cached token and fees for requests and searches."""
    price = PriceOverride(
        input=Decimal(1),
        output=Decimal(2),
        cache_write=Decimal(3),
        cache_write_1h=Decimal(5),
        request=Decimal("0.01"),
        search=Decimal("0.1"),
    )
    found = quote("mine", "nowhere", {}, {"mine": price}, AT, searches=4)
    assert found is not None
    usage = RequestUsage(
        input_tokens=1000, cache_write_tokens=300, cache_write_1h_tokens=100, output_tokens=10, web_searches=2
    )
    tokens_cost = 700 * 1_000 + 200 * 3_000 + 100 * 5_000 + 10 * 2_000
    assert found.cost(usage) == tokens_cost + 10_000_000 + 200_000_000
    assert found.max_cost(1000, 10) == 1000 * 5_000 + 10 * 2_000 + 10_000_000 + 400_000_000


def test_one_hour_writes_default_to_writes() -> None:
    """An own price without one for the one-hour cache takes that of other writes."""
    own = {"mine": PriceOverride(input=Decimal(1), output=Decimal(1), cache_write=Decimal(3))}
    found = quote("mine", "nowhere", {}, own, AT)
    assert found is not None
    usage = RequestUsage(input_tokens=100, cache_write_tokens=100, cache_write_1h_tokens=100)
    assert found.cost(usage) == 100 * 3_000


@pytest.mark.parametrize("price", [{"input": -1}, {"input": "NaN"}, {"input": "1e7"}, {"request": -1}, {"fee": 1}])
def test_nonsense_prices(price: dict[str, Any]) -> None:
    """A price that is negative, absurd or of an unknown kind is an error."""
    with pytest.raises(ValidationError):
        PriceOverride.model_validate({"input": 1, "output": 1, **price})


@pytest.mark.parametrize(
    ("usage", "details", "reported"),
    [
        (RequestUsage(), {"cost": 0.0038}, 3_800_000),
        (RequestUsage(cost=Decimal("0.002")), {}, 2_000_000),
        (RequestUsage(cost=Decimal(0)), None, 0),
        (RequestUsage(details={"cost": 1}), {}, 1_000_000_000),
        (RequestUsage(), {"cost": 0.01, "is_byok": True, "upstream_inference_cost": 0.2}, 210_000_000),
        (RequestUsage(), {"is_byok": True, "upstream_inference_cost": 0.2}, 200_000_000),
        (RequestUsage(), {"cost": 0.01, "is_byok": False, "upstream_inference_cost": 0.2}, 10_000_000),
        (RequestUsage(), {"cost": -1}, None),
        (RequestUsage(), {"cost": "free"}, None),
        (RequestUsage(cost=Decimal("NaN")), {"cost": True}, None),
        (RequestUsage(input_tokens=5), None, None),
    ],
)
def test_reported_cost(usage: RequestUsage, details: dict[str, Any] | None, reported: int | None) -> None:
    """What the provider says a request cost is read wherever a model of Pydantic AI leaves it, if it is an amount."""
    assert reported_cost(usage, details) == reported
