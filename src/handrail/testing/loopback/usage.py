"""The true tokens of a request: counted, with the cache's part, or as the reply overrides it."""

from dataclasses import replace

from .answer import ModelAnswer, TokenUsage
from .cache import CachedTokens
from .prompt import ProviderRequest, count_segments, count_text
from .replies import Reply


def true_usage(
    request: ProviderRequest, reply: Reply, answer: ModelAnswer, cached: CachedTokens, bytes_per_token: int
) -> TokenUsage:
    """The tokens of a request whose answer was generated in full, over all of its choices."""
    prompt = count_segments(request.segments, bytes_per_token)
    searches = reply.web_searches if request.searches_web else 0
    search_tokens = reply.web_search_tokens if request.searches_web else 0
    read = min(cached.read if reply.cached_tokens is None else reply.cached_tokens, prompt)
    written_1h = cached.written_1h if reply.cache_write_1h_tokens is None else reply.cache_write_1h_tokens
    written = max(cached.written, written_1h) if reply.cache_write_tokens is None else reply.cache_write_tokens
    written = min(written, prompt - read)
    thinking = min(count_text(answer.thinking, bytes_per_token), answer.visible_tokens)
    return TokenUsage(
        input_tokens=prompt + search_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written_1h, written),
        output_tokens=answer.output_tokens * request.choices,
        reasoning_tokens=(answer.hidden_tokens + thinking) * request.choices,
        web_searches=searches,
        search_tokens=search_tokens,
    )


def usage_until(
    usage: TokenUsage, request: ProviderRequest, answer: ModelAnswer, chunks: int, all_chunks: int
) -> TokenUsage:
    """The tokens of a stream that ends early: input and hidden reasoning in full, and the share of the chunks."""
    if chunks >= all_chunks:
        return usage
    hidden, visible = answer.hidden_tokens * request.choices, answer.visible_tokens * request.choices
    output = hidden + -(-visible * chunks // all_chunks)
    return replace(usage, output_tokens=output, reasoning_tokens=min(usage.reasoning_tokens, output))
