"""Answered requests: what they cost by tokens, cache, tier, length and fee is booked exactly as it is billed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ImageUrl
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.providers.openrouter import OpenRouterProvider

from handrail import Ended, govern
from handrail.config.settings import Ceilings
from handrail.kernel.money import nano_usd
from handrail.testing import LoopbackProvider, Reply, ReplyToolCall

from .conftest import Api, Spender, drain, price

LONG = "What does it cost? " * 600
"""2,850 of the provider's tokens, enough for its prompt cache."""


class Count(BaseModel):
    """A structured output."""

    count: int


def look_up(key: str) -> str:
    """A tool."""
    return f"{key} is in stock"


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A request and its answer, which the provider bills in its own way."""

    api: Api = "chat"
    model: str | None = None
    replies: Sequence[Reply] = (Reply(text="The answer is 42."),)
    settings: dict[str, Any] = field(default_factory=dict)
    prompt: Any = "hi"
    agent: dict[str, Any] = field(default_factory=dict)
    prices: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Own prices, which the provider has too."""
    bytes_per_token: int = 4
    streamed: bool = False
    requests: int = 1


CHAIR, TABLE, LAMP = (ReplyToolCall("look_up", {"key": key}) for key in ("chair", "table", "lamp"))
TOOL_LOOP = (Reply(tool_calls=[CHAIR, TABLE]), Reply(text="One more.", tool_calls=[LAMP]), Reply(text="done"))
COUNTED = Reply(tool_calls=[ReplyToolCall("final_result", {"count": 1})])
MISCOUNTED = Reply(tool_calls=[ReplyToolCall("final_result", {"count": "many"})])
THOUGHT = (Reply(text="done", hidden_reasoning_tokens=700),)
IMAGE = BinaryContent(b"\x89PNG\r\n\x1a\n" + bytes(64), media_type="image/png")


def tier(asked: str | None, served: str | None) -> Any:
    """A request for a service tier that is served at another one."""
    settings = {} if asked is None else {"openai_service_tier": asked}
    return Priced(model="gpt-5.1", prompt=LONG, settings=settings, replies=[Reply(text="done", service_tier=served)])


WAYS = {
    "plain-chat": Priced(),
    "plain-responses": Priced(api="responses"),
    "plain-messages": Priced(api="messages"),
    "streamed-chat": Priced(streamed=True),
    "streamed-responses": Priced(api="responses", streamed=True),
    "streamed-messages": Priced(api="messages", streamed=True),
    "tools-chat": Priced(replies=TOOL_LOOP, agent={"tools": [look_up]}, requests=3),
    "tools-responses": Priced(api="responses", replies=TOOL_LOOP, agent={"tools": [look_up]}, requests=3),
    "tools-messages": Priced(api="messages", replies=TOOL_LOOP, agent={"tools": [look_up]}, requests=3),
    "tools-streamed": Priced(replies=TOOL_LOOP, agent={"tools": [look_up]}, requests=3, streamed=True),
    "own-price": Priced(prices={"openai:gpt-4o": ("40", "80")}),
    "own-price-dated-model": Priced(
        prices={"openai:gpt-4o": ("40", "80")}, replies=[Reply(text="done", model="gpt-4o-2024-08-06")]
    ),
    "own-price-unknown-model": Priced(model="house", prices={"house": ("1", "2")}),
    "dated-model": Priced(replies=[Reply(text="done", model="gpt-4o-2024-08-06")]),
    "another-model-in-the-response": Priced(replies=[Reply(text="done", model="gpt-4o-mini")]),
    "tier-default": tier("default", None),
    "tier-priority": tier("priority", None),
    "tier-fast": tier("fast", None),
    "tier-flex": tier("flex", None),
    "tier-priority-served-at-default": tier("priority", "default"),
    "tier-flex-served-at-default": tier("flex", "default"),
    "tier-auto-served-at-priority": tier("auto", "priority"),
    "tier-by-project-setting": tier(None, "priority"),
    "tier-in-extra-body": Priced(model="gpt-5.1", settings={"extra_body": {"service_tier": "priority"}}),
    "tier-priority-responses": Priced(api="responses", settings={"openai_service_tier": "priority"}),
    "tier-priority-streamed": Priced(api="responses", settings={"openai_service_tier": "priority"}, streamed=True),
    "fast-mode": Priced(api="messages", model="claude-opus-4-8", settings={"anthropic_speed": "fast"}),
    "fast-mode-streamed": Priced(
        api="messages", model="claude-opus-4-8", settings={"anthropic_speed": "fast"}, streamed=True
    ),
    "cache-read-chat": Priced(prompt=LONG, replies=[Reply(text="done", cached_tokens=1_280)]),
    "cache-read-messages": Priced(api="messages", prompt=LONG, replies=[Reply(text="done", cached_tokens=1_000)]),
    "cache-read-by-second-request": Priced(prompt=LONG, replies=TOOL_LOOP, agent={"tools": [look_up]}, requests=3),
    "cache-write-5m": Priced(api="messages", prompt=LONG, settings={"anthropic_cache_messages": "5m"}),
    "cache-write-1h": Priced(api="messages", prompt=LONG, settings={"anthropic_cache_messages": "1h"}),
    "cache-write-1h-streamed": Priced(
        api="messages", prompt=LONG, settings={"anthropic_cache_messages": "1h"}, streamed=True
    ),
    "cache-read-and-both-writes": Priced(
        api="messages",
        prompt=LONG,
        replies=[Reply(text="done", cached_tokens=900, cache_write_tokens=1_500, cache_write_1h_tokens=400)],
    ),
    "long-context": Priced(model="gpt-5.4", prompt="x" * 280_000, bytes_per_token=1),
    "hidden-reasoning-chat": Priced(model="gpt-5.1", replies=THOUGHT),
    "hidden-reasoning-responses": Priced(api="responses", replies=THOUGHT),
    "hidden-reasoning-messages": Priced(api="messages", replies=THOUGHT),
    "hidden-reasoning-streamed": Priced(api="responses", replies=THOUGHT, streamed=True),
    "shown-reasoning": Priced(api="messages", replies=[Reply(thinking="Let me think. " * 40, text="done")]),
    "image": Priced(prompt=["What is this?", IMAGE]),
    "image-by-url": Priced(api="messages", prompt=["What is this?", ImageUrl("https://example.com/chair.png")]),
    "malformed-once": Priced(replies=[MISCOUNTED, COUNTED], agent={"output_type": Count}, requests=2),
    "malformed-twice": Priced(replies=[MISCOUNTED], agent={"output_type": Count, "retries": 5}, requests=2),
    "unknown-tool": Priced(
        replies=[Reply(tool_calls=[ReplyToolCall("invented", {})])],
        agent={"tools": [look_up], "retries": 9},
        requests=2,
    ),
    "empty-answer": Priced(replies=[Reply(text="", output_tokens=9)], requests=2),
    "answer-cut-by-the-agents-limit": Priced(replies=[Reply(text="words " * 900)], settings={"max_tokens": 50}),
    "answer-filtered": Priced(replies=[Reply(text="The ans", finish="content_filter")]),
    "answer-refused": Priced(api="messages", replies=[Reply(text="I cannot help.", finish="refusal")]),
}


@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])
async def test_answered(spender: Spender, way: Priced) -> None:
    """What an answered request is booked at is what the provider bills for it."""
    own = {model: price(*prices) for model, prices in way.prices.items()}
    billed_at: Any = {model.removeprefix("openai:"): tuple(map(Decimal, pair)) for model, pair in way.prices.items()}
    settings: Any = way.settings
    with LoopbackProvider(prices=billed_at, bytes_per_token=way.bytes_per_token) as provider:
        spender.provider = provider
        provider.reply(*way.replies)
        agent = Agent(spender.model(way.api, way.model), model_settings=settings, **way.agent)
        runtime = spender.runtime(prices=own)
        handler = drain if way.streamed else None
        booking = await spender.spend(agent, way.prompt, runtime=runtime, event_stream_handler=handler)
        booking.assert_exact(way.requests)
        for span, request in zip(booking.requests, provider.requests, strict=True):
            assert request.bill is not None
            assert span.held is not None
            assert span.cost == request.bill.cost <= span.held
            assert span.usage.output == request.bill.output_tokens


async def test_fee_for_a_request(spender: Spender) -> None:
    """A fee for each request is held and booked with it."""
    own = {"gpt-4o": price("2.5", "10", request="0.25")}
    booking = await spender.spend(Agent(spender.model()), runtime=spender.runtime(prices=own))
    booking.assert_consistent()
    assert booking.spent == booking.billed + nano_usd(Decimal("0.25"))
    held = booking.requests[0].held
    assert held is not None
    assert held >= booking.spent


async def test_cost_reported_by_a_router(spender: Spender) -> None:
    """The cost that OpenRouter reports is kept beside the one that is booked."""
    with LoopbackProvider(openai_provider_id="openrouter") as provider:
        spender.provider = provider
        provider.reply(Reply(text="done", reported_cost=0.0123))
        client: Any = spender.client()
        model = OpenRouterModel("openai/gpt-4o", provider=OpenRouterProvider(openai_client=client))
        booking = await spender.spend(Agent(model))
        booking.assert_exact()
        assert booking.requests[0].reported_cost == nano_usd(Decimal("0.0123"))


async def test_limit_from_the_ceiling(spender: Spender) -> None:
    """The run's ceiling on output becomes the request's limit; the answer that it cuts is booked as billed."""
    spender.provider.reply(Reply(text="words " * 900))
    tight = spender.runtime(ceilings=Ceilings(run_output_tokens=60))
    booking = await spender.spend(Agent(spender.model()), runtime=tight)
    booking.assert_exact()
    assert booking.provider.requests[0].body["max_completion_tokens"] == 60
    assert booking.outcome.fault.code == "output_cut"


async def test_counting_tokens(spender: Spender) -> None:
    """A count of tokens that saves a request from refusal is free, and the request is booked as billed."""
    tight = spender.runtime(ceilings=Ceilings(run_input_tokens=4_000))
    booking = await spender.spend(Agent(spender.model("messages")), LONG, runtime=tight)
    booking.assert_consistent()
    assert [request.path for request in booking.provider.requests] == ["/v1/messages/count_tokens", "/v1/messages"]
    assert booking.spent == booking.billed > 0


async def test_stream_of_events(spender: Spender) -> None:
    """A run whose events are read to the end is booked as billed."""
    governed = govern(Agent(spender.model()), name="spender")
    spender.provider.reply(Reply(text="words " * 30))

    async def run() -> Any:
        *_, last = [event async for event in governed.stream("hi", user="u")]
        assert isinstance(last, Ended)
        return last.outcome

    booking = await spender.spend(Agent(), run=run)
    booking.assert_exact()
