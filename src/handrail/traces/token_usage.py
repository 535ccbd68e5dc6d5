"""How many tokens a request used, whatever its sender includes in the input.

OpenTelemetry and OpenInference include cached tokens in the input and reasoning tokens in the output. Anthropic and
Bedrock report cached tokens separately, and so do clients that pass the provider's numbers through; the entries of
Langfuse's usage details add up to the total. A reported total settles which convention was used, and so do counts too
large to be part of each other. Without either, the names of the attributes decide.
"""

from dataclasses import dataclass

from .model import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTokens:
    """Token counts as a sender reports them."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    total: int | None
    cache_excluded: bool
    """Whether the names of the cache counts imply that the input count leaves them out."""


def normalize_usage(counts: ReportedTokens) -> Usage:
    """The same tokens by OpenTelemetry's convention: the input includes cached ones, the output reasoning."""
    cached = counts.cache_read + counts.cache_write
    unexplained = None if counts.total is None else counts.total - counts.input - counts.output
    add_cached = cached > counts.input or _cache_excluded(counts, unexplained, cached)
    add_reasoning = counts.reasoning > counts.output or (
        unexplained is not None and unexplained > 0 and unexplained in (counts.reasoning, counts.reasoning + cached)
    )
    return Usage(
        input=counts.input + cached if add_cached else counts.input,
        output=counts.output + counts.reasoning if add_reasoning else counts.output,
        cache_read=counts.cache_read,
        cache_write=counts.cache_write,
    )


def _cache_excluded(counts: ReportedTokens, unexplained: int | None, cached: int) -> bool:
    """Whether the input leaves cached tokens out, by what the total has beyond input and output."""
    if unexplained in (0, counts.reasoning) and unexplained != cached:
        return False
    if unexplained is not None and unexplained > 0 and unexplained in (cached, cached + counts.reasoning):
        return True
    return counts.cache_excluded
