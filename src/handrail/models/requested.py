"""How a request's settings ask to be processed: in which service tier, and how fast."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai.profiles.anthropic import anthropic_model_profile

TIER = "service_tier"
STANDARD_TIERS = frozenset({"default", "standard", "standard_only", "on_demand", "scale"})
"""Names of the tier with a model's standard price. Scale is capacity that was paid for in advance."""
ANY_TIER = None
"""The provider chooses the tier, for example by a project's own setting."""
_TIER_SETTINGS = {
    "anthropic": "anthropic_service_tier",
    "aws": "bedrock_service_tier",
    "google": "google_cloud_service_tier",
}
# Those whose tiers have prices of their own. Others ignore the setting.
_TIERED_PROVIDERS = frozenset({"openai", "azure", "openrouter", "google", "aws"})
# OpenAI answers a request for either with the name of the first.
_SYNONYMS = frozenset({"priority", "fast"})


@dataclass(frozen=True)
class RequestedPricing:
    """What a request's settings say about its price."""

    tiers: frozenset[str] | None = ANY_TIER
    """The service tiers that it asks for."""
    fast: bool = False
    """Whether it asks for Anthropic's fast mode."""
    has_tiers: bool = False
    """Whether the provider has tiers with prices of their own."""

    def allows(self, when: Mapping[str, str]) -> bool:
        """Whether a price can apply to the request. A batch's cannot, as requests are sent one by one.

        Args:
            when: The values that the price needs in a response's details.
        """
        tier = when.get(TIER)
        return (
            when.get("processing") != "batch"
            and (when.get("speed") != "fast" or self.fast)
            and (tier is None or self.tiers is ANY_TIER or tier in self.tiers)
        )

    def is_unpriced(self, variants: Collection[Mapping[str, str]]) -> bool:
        """Whether the request asks for what costs more than the standard price, by an amount that is not known.

        Args:
            variants: The values that each price of the model other than the standard one needs.
        """
        priced = _with_synonyms({tier for variant in variants if (tier := variant.get(TIER))})
        unknown = self.has_tiers and (self.tiers or frozenset()) - STANDARD_TIERS - {"flex"} - priced
        return bool(unknown) or (self.fast and all(variant.get("speed") != "fast" for variant in variants))


def requested_pricing(model: str, provider: str | None, settings: Mapping[str, Any]) -> RequestedPricing:
    """What the settings of a request say about its price.

    Args:
        model: The model's name.
        provider: The provider's name in the price table.
        settings: Pydantic AI's model settings. `extra_body` overrides them.
    """
    extra = settings.get("extra_body")
    body: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
    named = [body.get(TIER)] if body.get(TIER) else [settings.get(_tier_setting(provider)), settings.get(TIER)]
    fast = provider == "anthropic" and (
        body.get("speed") == "fast"
        or (
            settings.get("anthropic_speed") == "fast"
            and bool((anthropic_model_profile(model) or {}).get("anthropic_supports_fast_speed"))
        )
    )
    tiers = {_tier_name(value) for value in named if value}
    return RequestedPricing(
        tiers=ANY_TIER if not tiers or "auto" in tiers else _with_synonyms(tiers),
        fast=fast,
        has_tiers=provider in _TIERED_PROVIDERS,
    )


def _tier_setting(provider: str | None) -> str:
    return _TIER_SETTINGS.get(provider or "", "openai_service_tier")


def _tier_name(value: object) -> str:
    """A tier's name in the price table. Bedrock's setting is an object, Google Cloud's says what to try first."""
    name = str(value.get("type")) if isinstance(value, Mapping) else str(value)
    if name in {"pt_only", "pt_then_on_demand"}:
        return "default"
    return name.removeprefix("pt_then_").removesuffix("_only") if name != "standard_only" else name


def _with_synonyms(tiers: Collection[str]) -> frozenset[str]:
    return frozenset(tiers) | _SYNONYMS if _SYNONYMS & set(tiers) else frozenset(tiers)
