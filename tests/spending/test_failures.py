"""Requests that fail: free only where the provider provably did not work on them, else booked as what was held."""

import asyncio
import gc
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelRequest, UserPromptPart

from handrail import Failed, TextDelta, govern
from handrail.testing import (
    Disconnect,
    EndsWithoutFinish,
    Hang,
    HtmlPage,
    HttpError,
    RawBody,
    Reply,
    ReplyToolCall,
    StreamError,
)
from handrail.testing.loopback.replies import ReplyFault

from .booking import Booking
from .conftest import TLS, Api, Spender, drain

APIS: tuple[Api, ...] = ("chat", "responses", "messages")


def begins_with(error: dict[str, Any]) -> RawBody:
    """A stream with status 200 whose first event is an error."""
    event = f"event: error\ndata: {json.dumps(error)}\n\n"
    return RawBody(event.encode(), content_type="text/event-stream")


async def fail(spender: Spender, api: Api, reply: Reply, *, streamed: bool = False, **client_options: Any) -> Booking:
    """Runs an agent whose requests are all answered with `reply`."""
    spender.provider.reply(reply)
    agent = Agent(spender.model(api, **client_options))
    return await spender.spend(agent, event_stream_handler=drain if streamed else None)


@pytest.mark.parametrize(
    ("api", "status", "code"),
    [
        pytest.param("chat", 400, "model_rejected", id="http-400"),
        pytest.param("responses", 401, "model_auth", id="http-401"),
        pytest.param("chat", 402, "model_quota", id="http-402"),
        pytest.param("messages", 403, "model_auth", id="http-403"),
        pytest.param("responses", 404, "model_unknown", id="http-404"),
        pytest.param("messages", 413, "input_too_long", id="http-413"),
        pytest.param("chat", 422, "model_rejected", id="http-422"),
        pytest.param("chat", 429, "model_rate_limited", id="http-429-chat"),
        pytest.param("responses", 429, "model_rate_limited", id="http-429-responses"),
        pytest.param("messages", 429, "model_rate_limited", id="http-429-messages"),
    ],
)
async def test_turned_down(spender: Spender, api: Api, status: int, code: str) -> None:
    """A request that the provider turned down with a client error is free."""
    booking = await fail(spender, api, Reply(fault=HttpError(status)))
    booking.assert_free()
    assert isinstance(booking.outcome, Failed)
    assert booking.outcome.fault.code == code


@pytest.mark.parametrize(
    ("api", "fault"),
    [
        pytest.param("chat", HttpError(408), id="http-408"),
        pytest.param("chat", HttpError(499), id="http-499"),
        pytest.param("chat", HttpError(500), id="http-500"),
        pytest.param("responses", HttpError(502), id="http-502"),
        pytest.param("responses", HttpError(503), id="http-503"),
        pytest.param("chat", HttpError(504), id="http-504"),
        pytest.param("messages", HttpError(504), id="http-504-messages"),
        pytest.param("messages", HttpError(524), id="http-524"),
        pytest.param("messages", HttpError(529), id="http-529"),
        pytest.param("chat", HtmlPage(), id="html-page-chat"),
        pytest.param("responses", HtmlPage(), id="html-page-responses"),
        pytest.param("messages", HtmlPage(), id="html-page-messages"),
        pytest.param("chat", HtmlPage(status=502), id="html-page-502"),
        pytest.param("chat", RawBody({"choices": []}), id="choices-empty"),
        pytest.param("chat", RawBody({"choices": None}), id="choices-null"),
        pytest.param("chat", RawBody({"error": {"message": "overloaded", "code": 529}}), id="error-in-a-200"),
        pytest.param("responses", RawBody({"error": {"message": "overloaded"}}), id="error-in-a-200-responses"),
        pytest.param(
            "messages", RawBody({"type": "error", "error": {"type": "api_error"}}), id="error-in-a-200-messages"
        ),
        pytest.param("chat", RawBody({}), id="empty-object"),
        pytest.param("responses", RawBody({"output": None}), id="output-null"),
        pytest.param("messages", RawBody({"content": None}), id="content-null"),
        pytest.param("chat", RawBody(None), id="null"),
        pytest.param("chat", RawBody([]), id="list"),
        pytest.param("chat", RawBody(b'{"choices": [{"mess'), id="broken-json-chat"),
        pytest.param("messages", RawBody(b'{"content": [{"te'), id="broken-json-messages"),
        pytest.param("chat", RawBody(b""), id="empty-body"),
        pytest.param("chat", Disconnect(), id="disconnect-chat"),
        pytest.param("messages", Disconnect(), id="disconnect-messages"),
        pytest.param("responses", None, id="answer-failed"),
    ],
)
async def test_maybe_worked_on(spender: Spender, api: Api, fault: ReplyFault | None) -> None:
    """A request that may have been worked on is booked as what was held, and the run fails with a typed fault."""
    booking = await fail(spender, api, Reply(text="The answer is 42.", fault=fault, finish=None if fault else "error"))
    booking.assert_estimated()
    assert booking.spent == booking.requests[0].held
    assert isinstance(booking.outcome, Failed)
    assert booking.outcome.fault.code in ("model_unavailable", "model_timeout")


@pytest.mark.parametrize(
    ("api", "reply"),
    [
        pytest.param("chat", Reply(text="words " * 50, fault=Disconnect(3)), id="disconnect-chat"),
        pytest.param("responses", Reply(text="words " * 50, fault=Disconnect(3)), id="disconnect-responses"),
        pytest.param("messages", Reply(text="words " * 50, fault=Disconnect(3)), id="disconnect-messages"),
        pytest.param("chat", Reply(text="words " * 50, fault=Disconnect(0)), id="disconnect-before-the-first-word"),
        pytest.param("chat", Reply(text="words " * 50, fault=EndsWithoutFinish(3)), id="no-finish-chat"),
        pytest.param("responses", Reply(text="words " * 50, fault=EndsWithoutFinish(3)), id="no-finish-responses"),
        pytest.param("messages", Reply(text="words " * 50, fault=EndsWithoutFinish(3)), id="no-finish-messages"),
        pytest.param("chat", Reply(text="words " * 50, fault=StreamError(3)), id="error-event-chat"),
        pytest.param("responses", Reply(text="words " * 50, fault=StreamError(3)), id="error-event-responses"),
        pytest.param("messages", Reply(text="words " * 50, fault=StreamError(3)), id="error-event-messages"),
        pytest.param(
            "responses",
            Reply(text="words " * 50, hidden_reasoning_tokens=3_000, fault=Disconnect(2)),
            id="disconnect-after-hidden-reasoning",
        ),
        pytest.param(
            "messages",
            Reply(thinking="hm " * 50, hidden_reasoning_tokens=3_000, text="ok", fault=StreamError(2)),
            id="error-event-after-hidden-reasoning",
        ),
        pytest.param(
            "chat", Reply(text="words", fault=begins_with({"error": {"code": 429}})), id="rate-limit-event-chat"
        ),
        pytest.param(
            "messages",
            Reply(text="words", fault=begins_with({"type": "error", "error": {"type": "invalid_request_error"}})),
            id="rejection-event-messages",
        ),
        pytest.param("chat", Reply(text="words", fault=HtmlPage()), id="html-page"),
        pytest.param("chat", Reply(text="words", fault=HttpError(503)), id="http-503"),
        pytest.param("chat", Reply(text="words " * 50, usage=None), id="no-usage-chat"),
        pytest.param(
            "chat",
            Reply(tool_calls=[ReplyToolCall("final", '{"a": ' + "1" * 900)], fault=Disconnect(9)),
            id="disconnect-in-arguments",
        ),
    ],
)
async def test_stream_broken(spender: Spender, api: Api, reply: Reply) -> None:
    """A stream that breaks off costs at least what was generated, hidden reasoning included; it is an estimate."""
    booking = await fail(spender, api, reply, streamed=True)
    booking.assert_estimated()
    if reply.fault is not None:
        assert isinstance(booking.outcome, Failed)


@pytest.mark.parametrize(
    ("api", "name", "reply"),
    [
        pytest.param("chat", "gpt-4o", Reply(text="words " * 100, chunk_delay_s=0.02), id="slower-than-its-reader"),
        pytest.param(
            "chat",
            "gpt-4o",
            Reply(text="words " * 2_000),
            id="faster-than-its-reader",
        ),
        pytest.param(
            "responses",
            "gpt-5.1",
            Reply(text="words " * 100, hidden_reasoning_tokens=2_000, chunk_delay_s=0.02),
            id="hidden-reasoning-responses",
        ),
        pytest.param(
            "messages",
            "claude-sonnet-5",
            Reply(text="words " * 100, hidden_reasoning_tokens=2_000, chunk_delay_s=0.02),
            id="hidden-reasoning-messages",
        ),
    ],
)
async def test_stream_left_early(spender: Spender, api: Api, name: str, reply: Reply) -> None:
    """A stream that its reader leaves costs at least what the provider generated until it noticed."""
    spender.provider.reply(Reply(tool_calls=[ReplyToolCall("look", {})]), reply, Reply(text="done"))
    inner = spender.model(api, name)

    async def look() -> str:
        async with model_request_stream(inner, [ModelRequest([UserPromptPart("hi")])]) as stream:
            async for _ in stream:
                if not reply.chunk_delay_s:
                    await asyncio.to_thread(spender.provider.wait_until_idle)
                break
        # The client's generators are left unfinished; they have to be closed while their event loop runs.
        gc.collect()
        await asyncio.sleep(0.01)
        return "done"

    booking = await spender.spend(Agent(spender.model("chat"), tools=[look]))
    booking.assert_estimated(3)


async def test_stream_of_events_left(spender: Spender) -> None:
    """A run whose events nobody reads any more is cancelled, and costs at least what was generated until then."""
    governed = govern(Agent(spender.model("messages")), name="spender")
    spender.provider.reply(Reply(text="words " * 100, chunk_delay_s=0.02))

    async def run() -> None:
        async with aclosing(governed.stream("hi", user="u")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break

    booking = await spender.spend(Agent(), run=run)
    booking.assert_estimated()


@pytest.mark.parametrize("api", [pytest.param(api, id=api) for api in APIS])
async def test_client_timeout(spender: Spender, api: Api) -> None:
    """A request whose client stopped waiting is billed in full, and so booked as what was held."""
    booking = await fail(spender, api, Reply(text="words " * 100, fault=Hang()), timeout=0.15)
    booking.assert_estimated()
    assert booking.outcome.fault.code == "model_timeout"


async def test_timeout_in_the_settings(spender: Spender) -> None:
    """The time-out of the agent's settings is no different."""
    spender.provider.reply(Reply(text="words", fault=Hang()))
    booking = await spender.spend(Agent(spender.model(), model_settings={"timeout": 0.15}))
    booking.assert_estimated()


@pytest.mark.parametrize("streamed", [pytest.param(False, id="whole"), pytest.param(True, id="streamed")])
async def test_cancelled(spender: Spender, streamed: bool) -> None:
    """A run that its caller cancels costs what the provider may have worked on; the cancellation propagates."""
    slow = Reply(text="words " * 100, chunk_delay_s=0.05) if streamed else Reply(text="words", fault=Hang())
    spender.provider.reply(slow)
    agent = Agent(spender.model())
    started = asyncio.create_task(spender.spend(agent, event_stream_handler=drain if streamed else None))
    await spender.requests_received(1)
    await asyncio.sleep(0.1)
    started.cancel()
    booking = await started
    booking.assert_estimated()
    assert isinstance(booking.raised, asyncio.CancelledError)


async def test_connection_refused(spender: Spender) -> None:
    """A request whose connection was never made is free."""
    booking = await spender.spend(Agent(spender.model(base_url="http://127.0.0.1:9/v1")))
    booking.assert_free()
    assert booking.outcome.fault.code == "model_unavailable"


async def test_unknown_host(spender: Spender) -> None:
    """A request to a host that does not exist is free."""
    booking = await spender.spend(Agent(spender.model(base_url="http://nowhere.invalid/v1")))
    booking.assert_free()


class Failover(httpx2.AsyncBaseTransport):
    """Sends a request to the provider, and, if that fails, to a host where nobody listens."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=TLS)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except httpx2.TimeoutException:
            pass
        request.url = request.url.copy_with(port=9)
        return await self._inner.handle_async_request(request)


@pytest.mark.parametrize("api", [pytest.param(api, id=api) for api in APIS])
async def test_transport_that_fails_over(spender: Spender, api: Api) -> None:
    """A transport that timed out at one host and was refused at the next one may have been worked on."""
    client = httpx2.AsyncClient(transport=Failover(), timeout=0.15, verify=TLS)
    booking = await fail(spender, api, Reply(text="words", fault=Hang()), http_client=client, timeout=0.15)
    booking.assert_estimated()


class Resend(httpx2.AsyncBaseTransport):
    """Sends a request again if it gets an error, and returns the last answer."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=TLS)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code >= 500:
            await response.aread()
            return await self._inner.handle_async_request(request)
        return response


async def test_transport_that_sends_again(spender: Spender) -> None:
    """A transport that got 503 and then 400 may have been worked on, though the last answer is free by itself."""
    spender.provider.reply(Reply(text="words", fault=HttpError(503)), Reply(fault=HttpError(400)))
    client = httpx2.AsyncClient(transport=Resend(), verify=TLS)
    booking = await spender.spend(Agent(spender.model(http_client=client)))
    booking.assert_estimated()


async def test_transport_that_gets_an_answer_at_last(spender: Spender) -> None:
    """A transport that got 503 and then an answer was billed twice, which nobody outside of it can see."""
    spender.provider.reply(Reply(text="words", fault=HttpError(503)), Reply(text="done"))
    client = httpx2.AsyncClient(transport=Resend(), verify=TLS)
    booking = await spender.spend(Agent(spender.model(http_client=client)))
    booking.assert_consistent()
    _, answered = (request.bill for request in spender.provider.requests)
    assert answered is not None
    assert booking.spent == answered.cost < booking.billed


async def test_client_with_retries(spender: Spender) -> None:
    """A client that was made with retries sends each request once, since its retries could not be held."""
    booking = await fail(spender, "chat", Reply(text="words", fault=HttpError(500)), max_retries=5)
    booking.assert_estimated()
    assert len(booking.provider.requests) == 1


@dataclass(frozen=True)
class Reported:
    """Usage as a provider reports it, and which sides of it cannot be believed."""

    api: Api
    usage: Any


COUNTS = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
USAGES = {
    "missing-chat": Reported("chat", None),
    "missing-responses": Reported("responses", None),
    "empty-chat": Reported("chat", {}),
    "zero": Reported("chat", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "negative-input": Reported("chat", {**COUNTS, "prompt_tokens": -1_000_000}),
    "negative-output": Reported("chat", {**COUNTS, "completion_tokens": -1_000_000}),
    "negative-responses": Reported("responses", {"input_tokens": -9, "output_tokens": -9, "total_tokens": -18}),
    "negative-messages": Reported("messages", {"input_tokens": -9, "output_tokens": -9}),
    "output-only": Reported("chat", {"completion_tokens": 5, "total_tokens": 5}),
    "output-only-messages": Reported("messages", {"output_tokens": 5}),
    "input-only": Reported("chat", {"prompt_tokens": 10, "total_tokens": 10}),
    "cached-above-input": Reported("chat", {**COUNTS, "prompt_tokens_details": {"cached_tokens": 5_000}}),
    "negative-cached": Reported("chat", {**COUNTS, "prompt_tokens_details": {"cached_tokens": -5}}),
    "reasoning-above-output": Reported("chat", {**COUNTS, "completion_tokens_details": {"reasoning_tokens": 500}}),
    "absurd": Reported("chat", {"prompt_tokens": 10**15, "completion_tokens": 10**15, "total_tokens": 2 * 10**15}),
    "text": Reported("chat", {"prompt_tokens": "many", "completion_tokens": "few", "total_tokens": "all"}),
    "null-counts": Reported("chat", {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}),
}


@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in USAGES.items()])
async def test_unusable_usage(spender: Spender, way: Reported) -> None:
    """Usage that is missing or cannot be is replaced by what was held, and credits nobody."""
    booking = await fail(spender, way.api, Reply(text="The answer is 42.", usage=way.usage))
    booking.assert_estimated()
