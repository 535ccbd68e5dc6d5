"""What a response reports as used: checked against what was held, and counted for its price."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from genai_prices.data_units import unit_data
from pydantic_ai.usage import RequestUsage

MAX_COUNT = 1_000_000_000
"""The most of anything that one request can use. No model comes near it, and the ledger's 64-bit sums stay exact."""

# Each count in a pair is a part of the other.
_PARTS = (
    ("cache_write_1h_tokens", "cache_write_tokens"),
    ("cache_audio_read_tokens", "cache_read_tokens"),
    ("cache_audio_read_tokens", "input_audio_tokens"),
)


@dataclass(frozen=True)
class CheckedUsage:
    """Usage that can be booked."""

    usage: RequestUsage
    estimated: bool
    """Whether the input or the output is what was held, because the response did not credibly report it."""


def checked_usage(usage: RequestUsage, held_input: int, held_output: int, *, has_content: bool) -> CheckedUsage:
    """Replaces what a response does not credibly report by what was held.

    Input and output are judged apart. One is not credible if a count in it is negative, not a whole number or above
    MAX_COUNT, if a part exceeds its whole, or if it is missing.

    Args:
        usage: What the response reports.
        held_input: The input tokens that were held.
        held_output: The output tokens that were held.
        has_content: Whether the response has any content, so that it cannot have had no output.
    """
    no_input, no_output = usage.input_tokens == 0, usage.output_tokens == 0
    bad_input = no_input or not _is_credible_input(usage)
    bad_output = (no_output and (has_content or no_input)) or not _is_credible(usage, "output_")
    checked = copy(usage)
    if bad_input:
        _replace(checked, ("input_", "cache_"), "input_tokens", held_input)
    if bad_output:
        _replace(checked, ("output_",), "output_tokens", held_output)
    return CheckedUsage(checked, bad_input or bad_output)


def _is_credible_input(usage: RequestUsage) -> bool:
    return (
        _is_credible(usage, "input_")
        and all(0 <= _whole(value) <= usage.input_tokens for value in _counts(usage, "cache_"))
        and usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
        and all(getattr(usage, part, 0) <= getattr(usage, whole, 0) for part, whole in _PARTS)
    )


def _is_credible(usage: RequestUsage, direction: str) -> bool:
    total = _whole(getattr(usage, f"{direction}tokens"))
    return 0 <= total <= MAX_COUNT and all(0 <= _whole(value) <= total for value in _counts(usage, direction))


def _counts(usage: RequestUsage, prefix: str) -> list[object]:
    return [value for name, value in vars(usage).items() if name.startswith(prefix) and name.endswith("_tokens")]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _replace(usage: RequestUsage, prefixes: tuple[str, ...], total: str, count: int) -> None:
    for name in [name for name in vars(usage) if name.startswith(prefixes)]:
        setattr(usage, name, 0)
    setattr(usage, total, count)


def usage_counts(usage: RequestUsage, details: Mapping[str, Any], provider: str | None) -> dict[str, Decimal]:
    """How much of each of genai-prices' kinds a request used, none negative or above MAX_COUNT.

    Args:
        usage: What the response reports. Kinds that Pydantic AI has no field for are attributes or in its `details`.
        details: The response's `provider_details`.
        provider: The provider's name in the price table.
    """
    counts = {kind: count for kind, value in vars(usage).items() if kind in unit_data and (count := _count(value))}
    counts["requests"] = Decimal(1)
    tools = details.get("server_tool_use")
    if provider == "openrouter" and isinstance(tools, Mapping):
        counts["web_searches"] = _count(tools.get("web_search_requests"))
    if provider == "perplexity":
        # Read by an OpenAI client, its searches are only here, and its output does not include the other two.
        counts.setdefault("web_searches", _count(usage.details.get("num_search_queries")))
        for detail, kind in (
            ("reasoning_tokens", "output_reasoning_tokens"),
            ("citation_tokens", "output_citation_tokens"),
        ):
            if kind not in counts and (count := _count(usage.details.get(detail))):
                counts[kind] = count
                counts["output_tokens"] = counts.get("output_tokens", Decimal(0)) + count
    return counts


def _count(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return Decimal(0)
    # A float as it is written, as genai-prices does: 0.1 is not the binary fraction next to it.
    count = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    return min(count, Decimal(MAX_COUNT)) if count.is_finite() and count > 0 else Decimal(0)
