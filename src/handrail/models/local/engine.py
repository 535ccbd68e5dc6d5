"""llama.cpp in this process: loads a weights file once, then serves one request at a time.

On a laptop, concurrent generations would only compete for the same cores; a single slot keeps its prompt cache.
"""

import asyncio
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from handrail.kernel.errors import MissingExtra
from handrail.kernel.forks import ForkSafePool, begin_anew_when_forked

CONTEXT_TOKENS = 8192
_BATCH_TOKENS = 256  # a request can be stopped between batches of its prompt: about every two seconds
_PROMPT_CACHE_MIB = 256


@dataclass(frozen=True)
class Completion:
    """The generated text and its usage in tokens; `cached_tokens` of `input_tokens` came from the prompt cache."""

    text: str
    cut_off: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class EngineError(Exception):
    """An error of llama.cpp's own; `kind` is its error type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Engine:
    """One weights file, loaded at the first request, and the thread that all requests to it run on."""

    def __init__(self, weights: Path) -> None:
        """Loads nothing yet. Raises MissingExtra without xllamacpp."""
        if find_spec("xllamacpp") is None:
            raise MissingExtra("The built-in model", "local")
        self._weights = weights
        self._thread = ForkSafePool(max_workers=1, thread_name_prefix="handrail-llama")
        self._server: Any = None
        self._inherited: list[Any] = []
        begin_anew_when_forked(self)

    def begin_anew(self) -> None:
        """In a forked process: the weights are loaded again when they are needed, since llama.cpp has threads."""
        # Kept: the end of an inherited server would wait for its threads.
        self._inherited.append(self._server)
        self._server = None

    async def complete(self, request: Mapping[str, Any], timeout_s: float) -> Completion:
        """Runs a chat completion. A cancelled or late request stops at its next token, or leaves the queue.

        Args:
            request: The fields of OpenAI's chat completion and llama.cpp's own.
            timeout_s: Seconds to wait, time in the queue included.

        Raises:
            TimeoutError: There is no completion in time.
            EngineError: llama.cpp rejected the request or could not load the weights.
        """
        stop = threading.Event()
        future = self._thread.submit(self._generate, dict(request), stop)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        finally:
            stop.set()

    def _generate(self, request: dict[str, Any], stop: threading.Event) -> Completion:
        if self._server is None:
            self._server = _load(self._weights)
        chunks: list[dict[str, Any]] = []

        def on_chunk(chunk: dict[str, Any]) -> bool:
            chunks.append(chunk)
            return stop.is_set()

        streaming = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
        self._server.handle_chat_completions(request | streaming, on_chunk)
        return _join(chunks)


@cache
def engine_for(weights: Path) -> Engine:
    """This process's only engine for a weights file."""
    return Engine(weights)


def _load(weights: Path) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT_TOKENS
    params.n_batch = _BATCH_TOKENS
    params.n_parallel = 1
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.warmup = False
    params.verbosity = -1
    # The library always listens on a loopback port; a random key keeps other programs out.
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise EngineError("load_error", f"llama.cpp cannot load {weights}: {error}") from error


def _join(chunks: list[dict[str, Any]]) -> Completion:
    text, finish = "", None
    usage: dict[str, Any] = {}
    for chunk in chunks:
        if error := chunk.get("error"):
            raise EngineError(str(error.get("type")), str(error.get("message")))
        for choice in chunk.get("choices", ()):
            text += choice["delta"].get("content") or ""
            finish = choice.get("finish_reason") or finish
        usage = chunk.get("usage") or usage
    return Completion(
        text=text,
        cut_off=finish != "stop",
        input_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
    )
