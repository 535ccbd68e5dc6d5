"""How many tokens a request used, whatever its sender counts as input.

OpenTelemetry and OpenInference count cached tokens as input and reasoning as output. Anthropic and Bedrock leave cached
tokens out, and programs that pass their numbers on leave them out too; Langfuse's details are parts of a sum. A total
tells which it was, and so do numbers that cannot be part of each other; else the names that were used decide.
"""

from dataclasses import dataclass

from .model import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens as a sender reports them; `apart` where its names say that cached ones stand beside the input."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    total: int | None
    apart: bool


def usage_of(counts: Counts) -> Usage:
    """The same tokens by OpenTelemetry's rule: the input includes cached ones, the output reasoning."""
    cached = counts.cache_read + counts.cache_write
    beyond = None if counts.total is None else counts.total - counts.input - counts.output
    cached_apart = cached > counts.input or _told(counts, beyond, cached, counts.reasoning)
    reasoning_apart = counts.reasoning > counts.output or (
        beyond is not None and beyond > 0 and beyond in (counts.reasoning, counts.reasoning + cached)
    )
    return Usage(
        input=counts.input + cached if cached_apart else counts.input,
        output=counts.output + counts.reasoning if reasoning_apart else counts.output,
        cache_read=counts.cache_read,
        cache_write=counts.cache_write,
    )


def _told(counts: Counts, beyond: int | None, cached: int, reasoning: int) -> bool:
    if beyond in (0, reasoning) and beyond != cached:
        return False
    if beyond is not None and beyond > 0 and beyond in (cached, cached + reasoning):
        return True
    return counts.apart
