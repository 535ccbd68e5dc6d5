"""The provider: it gives each request its reply, and keeps the bill."""

import itertools
import json
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any

from handrail.kernel.money import NanoUsd

from .answer import ModelResult, TokenUsage, answer_to, arguments_text
from .anthropic_messages import anthropic_error, prompt_request
from .bill import Bill, InventedPrices, bill_for, knows_model
from .cache import CachedTokens, PromptCache
from .exchange import BilledExchange, ReceivedRequest, RequestRecord, UnbilledExchange
from .openai_chat import openai_error
from .prompt import BadPrompt, PromptSegment, ProviderRequest, count_segments, count_text
from .replies import Reply, StreamError, failing_status, is_free_status
from .response import PlannedResponse, json_response, planned_response
from .server import HttpExchange, HttpRequest, LoopbackServer
from .usage import true_usage
from .wire import COUNT_TOKENS_PATH, MODELS_PATH, WIRE_FORMATS, WireFormat


class LoopbackProvider:
    """A provider of language models on 127.0.0.1, with the wire formats of OpenAI and Anthropic, and with its own bill.

    Any client can speak to it: the official ones, Pydantic AI's models, or `curl`. Every request is answered with the
    next reply, and billed with the tokens that the provider counts itself: `count` for text, and four more for each
    message, tool and output schema. Prices are genai-prices' for the requested model. What is simplified:

    - A request whose client has left is billed in full if it asks for no stream. A stream is billed up to the last
      chunk generated before the provider noticed, with its input and its hidden reasoning in full.
    - An answer with a 4xx status other than 408 and 499 is free; every other one is billed, however it fails.
    - Prompt caches never expire, and an image is 1,000 tokens.

    Use it as a context manager; when it ends, it closes all connections.

    Args:
        prices: Dollars per million input and output tokens of invented models. They apply to input tokens however
            cached and to every service tier; a web search costs a cent. Other models have the table's prices, and a
            model that has none is answered with status 404.
        bytes_per_token: UTF-8 bytes in a token; 1 is the worst case.
        openai_provider_id: Which of genai-prices' providers plays at `openai_url`, such as `openrouter`.
    """

    def __init__(
        self,
        *,
        prices: InventedPrices | None = None,
        bytes_per_token: int = 4,
        openai_provider_id: str = "openai",
    ) -> None:
        self._prices = dict(prices or {})
        self._bytes_per_token = bytes_per_token
        self._provider_ids = {"openai": openai_provider_id, "anthropic": "anthropic"}
        self._replies: deque[Reply] = deque([Reply(text="ok")])
        self._records: list[RequestRecord] = []
        self._cache = PromptCache(bytes_per_token)
        self._kept: dict[str, tuple[PromptSegment, ...]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._running: LoopbackServer | None = None

    def __enter__(self) -> "LoopbackProvider":
        """Binds a port and starts the server.

        Returns:
            The provider itself.
        """
        self._running = LoopbackServer(self._answer)
        self._running.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the server and all its connections, whatever they are waiting for."""
        self._server.close()

    @property
    def _server(self) -> LoopbackServer:
        if self._running is None:
            raise RuntimeError("the provider has no address yet: use it in a `with` statement")
        return self._running

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's client and for Pydantic AI's `OpenAIProvider`."""
        return f"{self._server.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The base URL for Anthropic's client and for Pydantic AI's `AnthropicProvider`."""
        return self._server.url

    def reply(self, *replies: Reply) -> None:
        """Sets the replies to the next requests, in order of arrival; the last one is repeated.

        Args:
            replies: At least one. They replace those that are left from earlier calls.

        Raises:
            ValueError: There is no reply.
        """
        if not replies:
            raise ValueError("give at least one reply")
        with self._lock:
            self._replies = deque(replies)

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The requests in order of arrival, each with its bill so far."""
        with self._lock:
            return tuple(record.received() for record in self._records)

    @property
    def billed(self) -> NanoUsd:
        """The sum of all bills so far, in nano-dollars."""
        return NanoUsd(sum(request.bill.cost for request in self.requests if request.bill))

    def count(self, text: str) -> int:
        """Counts the tokens of a text as the provider does.

        Args:
            text: Any text.

        Returns:
            A token for each `bytes_per_token` bytes of UTF-8, rounded up.
        """
        return count_text(text, self._bytes_per_token)

    def wait_until_idle(self, timeout_s: float = 5.0) -> bool:
        """Waits until no request is being answered, such as one whose client has left; from then on the bill is final.

        Args:
            timeout_s: How many seconds to wait at most.

        Returns:
            Whether there is none now.
        """
        return self._server.wait_until_idle(timeout_s)

    def _answer(self, request: HttpRequest) -> HttpExchange:
        """Decides the response to a request, in the thread of its connection."""
        with self._lock:
            record = RequestRecord(request.path, MappingProxyType(dict(request.headers)), _parsed(request.body))
            self._records.append(record)
            wire = WIRE_FORMATS.get(request.path)
            if request.method == "POST" and isinstance(record.body, dict):
                try:
                    if wire is not None:
                        return self._worked_on(wire, wire.read(record.body), record)
                    if request.path == COUNT_TOKENS_PATH:
                        segments = prompt_request(record.body).segments
                        return UnbilledExchange(
                            json_response({"input_tokens": count_segments(segments, self._bytes_per_token)})
                        )
                except BadPrompt as error:
                    return UnbilledExchange(_error_response(request, 400, str(error)))
            if request.method == "GET" and request.path == MODELS_PATH:
                return UnbilledExchange(json_response(self._models()))
            if wire is not None:
                return UnbilledExchange(_error_response(request, 400, "The body must be a JSON object sent with POST."))
            return UnbilledExchange(_error_response(request, 404, f"Not found: {request.method} {request.path}"))

    def _worked_on(self, wire: WireFormat, request: ProviderRequest, record: RequestRecord) -> HttpExchange:
        provider_id = self._provider_ids[wire.provider]
        if not knows_model(provider_id, request.model, self._prices):
            message = f"The model `{request.model}` does not exist or you do not have access to it."
            return UnbilledExchange(json_response(wire.error(404, message, "model_not_found"), 404))
        if request.previous_response and request.previous_response not in self._kept:
            message = f"Previous response with id '{request.previous_response}' not found."
            return UnbilledExchange(json_response(wire.error(400, message, "previous_response_not_found"), 400))
        reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        if reply.finish == "error" and wire.provider == "anthropic" and reply.fault is None:
            # Anthropic has no stop reason for it.
            reply = replace(reply, fault=StreamError(after_chunks=len(reply.text)))
        request = self._with_kept(request)
        number = next(self._numbers)
        answer = answer_to(request, reply, self._bytes_per_token)
        is_free = is_free_status(failing_status(reply.fault) or 200)
        cached = CachedTokens()
        if not is_free:
            read_cache = self._cache.marked if wire.provider == "anthropic" else self._cache.automatic
            cached = read_cache(request.model, request.segments)
        result = ModelResult(
            id=f"loopback{number:04}",
            created=int(time.time()),
            provider_id=provider_id,
            request=request,
            reply=reply,
            answer=answer,
            usage=true_usage(request, reply, answer, cached, self._bytes_per_token),
            service_tier=reply.service_tier or request.service_tier,
        )
        response = planned_response(wire, result)
        if is_free:
            return UnbilledExchange(response)
        self._keep(result)
        all_chunks = sum(event.is_content for event in wire.events(result)) if request.stream else 0
        return BilledExchange(record, result, response, all_chunks, partial(self._bill, result))

    def _with_kept(self, request: ProviderRequest) -> ProviderRequest:
        earlier = self._kept.get(request.previous_response or request.conversation or "", ())
        return replace(request, messages=earlier + request.messages)

    def _keep(self, result: ModelResult) -> None:
        request = result.request
        if not request.keep:
            return
        calls = [text for call in result.answer.tool_calls for text in (call.name, arguments_text(call))]
        kept = (*request.messages, PromptSegment("\n".join([result.answer.text, *calls])))
        self._kept[f"resp_{result.id}"] = kept
        if request.conversation:
            self._kept[request.conversation] = kept

    def _bill(self, result: ModelResult, usage: TokenUsage) -> Bill:
        request = result.request
        return bill_for(result.provider_id, request.model, usage, result.service_tier, request.speed, self._prices)

    def _models(self) -> dict[str, Any]:
        models = [{"id": model, "object": "model", "type": "model", "created": 0} for model in self._prices]
        return {"object": "list", "data": models, "has_more": False, "first_id": None, "last_id": None}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _error_response(request: HttpRequest, status: int, message: str) -> PlannedResponse:
    is_anthropic = request.path.startswith("/v1/messages") or "anthropic-version" in request.headers
    return json_response((anthropic_error if is_anthropic else openai_error)(status, message), status)
