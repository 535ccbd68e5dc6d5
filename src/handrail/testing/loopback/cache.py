"""The provider's prompt cache. Entries never expire: a test that wants a miss changes the prompt or the provider."""

from dataclasses import dataclass
from hashlib import sha256

from .prompt import CacheLifetime, PromptSegment, count_segments

MIN_CACHED_TOKENS = 1024
"""No shorter prefix is cached, by either provider; some models' minimum is higher."""
_STEP = 128
"""OpenAI's cache hits are multiples of this many tokens: https://platform.openai.com/docs/guides/prompt-caching"""


@dataclass(frozen=True)
class CachedTokens:
    """How many of a prompt's tokens were read from and written to the cache."""

    read: int = 0
    written: int = 0
    """Those kept for an hour included."""
    written_1h: int = 0


class PromptCache:
    """The prefixes that one provider remembers.

    Args:
        bytes_per_token: The provider's bytes per token.
    """

    def __init__(self, bytes_per_token: int) -> None:
        self._bytes_per_token = bytes_per_token
        self._known: set[tuple[str, bytes]] = set()

    def automatic(self, model: str, segments: tuple[PromptSegment, ...]) -> CachedTokens:
        """Reads the longest known prefix, and remembers all of this prompt's, as OpenAI does without being asked.

        Args:
            model: The model; each has its own cache.
            segments: The prompt.
        """
        keys = self._keys(model, segments)
        longest = max((tokens for key, tokens in keys if key in self._known), default=0)
        self._known.update(key for key, _ in keys)
        return CachedTokens(read=longest // _STEP * _STEP if longest >= MIN_CACHED_TOKENS else 0)

    def marked(self, model: str, segments: tuple[PromptSegment, ...]) -> CachedTokens:
        """Reads the longest known prefix, and writes those that the request marks, as Anthropic does.

        What is billed as written lies after the prefix read: up to the last mark for an hour at the price of an hour,
        from there to the last mark at the price of five minutes.
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching#mixing-different-ttls

        Args:
            model: The model; each has its own cache.
            segments: The prompt.
        """
        keys = self._keys(model, segments)
        marks: list[tuple[tuple[str, bytes], int, CacheLifetime]] = [
            (key, tokens, segment.cached_for)
            for (key, tokens), segment in zip(keys, segments, strict=True)
            if segment.cached_for is not None and tokens >= MIN_CACHED_TOKENS
        ]
        if not marks:
            return CachedTokens()
        last = marks[-1][1]
        read = max((tokens for key, tokens in keys if key in self._known and tokens <= last), default=0)
        last_1h = max((tokens for _, tokens, lifetime in marks if lifetime == "1h"), default=0)
        self._known.update(key for key, _, _ in marks)
        return CachedTokens(read=read, written=last - read, written_1h=max(last_1h - read, 0))

    def _keys(self, model: str, segments: tuple[PromptSegment, ...]) -> list[tuple[tuple[str, bytes], int]]:
        """Each prefix of the prompt, as a key and its tokens."""
        digest = sha256()
        tokens = 0
        keys = []
        for segment in segments:
            text = segment.text.encode("utf-8", "surrogatepass")
            digest.update(len(text).to_bytes(8, "big") + segment.images.to_bytes(8, "big") + text)
            tokens += count_segments((segment,), self._bytes_per_token)
            keys.append(((model, digest.digest()), tokens))
        return keys
