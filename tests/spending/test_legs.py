"""Models that send a request more than once, or to more than one provider: each attempt is held and booked apart."""

import asyncio
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.capabilities import ModelFallback
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider

from handrail import Answered
from handrail.testing import Disconnect, Hang, HtmlPage, HttpError, RawBody, Reply

from .conftest import Spender, drain

DONE = Reply(text="done")
FREE_FIRST = {"400": HttpError(400), "429": HttpError(429)}
BILLED_FIRST = {
    "503": HttpError(503),
    "timeout": Hang(),
    "nonsense": RawBody({"choices": []}),
    "html-page": HtmlPage(),
    "disconnect": Disconnect(),
}
LEGS = [pytest.param(fault, True, id=name) for name, fault in FREE_FIRST.items()] + [
    pytest.param(fault, False, id=name) for name, fault in BILLED_FIRST.items()
]


def legs(spender: Spender) -> list[Model]:
    """Two models with prices that differ by far."""
    return [spender.model("chat", "gpt-4o", timeout=0.2), spender.model("messages")]


@pytest.mark.parametrize(("fault", "free"), LEGS)
async def test_fallback_model(spender: Spender, fault: Any, free: bool) -> None:
    """Each leg of a FallbackModel is held and priced by itself; the first is free only if it was turned down."""
    spender.provider.reply(Reply(text="words", fault=fault), Reply(text="done"))
    booking = await spender.spend(Agent(FallbackModel(*legs(spender))))
    assert isinstance(booking.outcome, Answered), booking.outcome
    assert [span.model for span in booking.requests] == ["gpt-4o", "claude-sonnet-5"]
    first, second = booking.requests
    bills = [request.bill for request in spender.provider.requests]
    assert bills[1] is not None
    assert second.cost == bills[1].cost
    assert booking.estimated == [not free, False]
    assert first.cost == (0 if free else first.held)
    booking.assert_consistent()
    assert booking.spent >= booking.billed


async def test_fallback_model_without_a_leg_that_answers(spender: Spender) -> None:
    """If every leg fails, each is booked for itself."""
    spender.provider.reply(Reply(text="words", fault=HttpError(503)), Reply(fault=HttpError(400)))
    booking = await spender.spend(Agent(FallbackModel(*legs(spender))))
    booking.assert_estimated(2)
    assert booking.estimated == [True, False]


async def test_fallback_model_streamed(spender: Spender) -> None:
    """A streamed FallbackModel is no different."""
    spender.provider.reply(Reply(fault=HttpError(429)), DONE)
    booking = await spender.spend(Agent(FallbackModel(*legs(spender))), event_stream_handler=drain)
    booking.assert_consistent()
    assert booking.spent == booking.billed > 0
    assert len(booking.requests) == 2


async def test_model_fallback_capability(spender: Spender) -> None:
    """The legs of Pydantic AI's `ModelFallback` capability are booked apart too."""
    spender.provider.reply(Reply(text="words", fault=HttpError(503)), DONE)
    first, second = legs(spender)
    booking = await spender.spend(Agent(first, capabilities=[ModelFallback(second)]))
    booking.assert_estimated(2)
    assert isinstance(booking.outcome, Answered)
    assert booking.estimated == [True, False]


class Stubborn(WrapperModel):
    """Sends a request three times before it gives up."""

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        for _ in range(2):
            try:
                return await self.wrapped.request(*args, **options)
            except ModelAPIError:
                continue
        return await self.wrapped.request(*args, **options)


async def test_wrapper_that_tries_again(spender: Spender) -> None:
    """A wrapper that tries again has each attempt held and booked."""
    down = Reply(text="words", fault=HttpError(503))
    spender.provider.reply(down, Reply(fault=HttpError(429)), DONE)
    booking = await spender.spend(Agent(Stubborn(spender.model())))
    booking.assert_estimated(3)
    assert booking.estimated == [True, False, False]
    assert booking.outcome.facts.requests == 3


class Ensemble(WrapperModel):
    """Asks twice at the same time, and takes the first answer."""

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        answers = await asyncio.gather(*(self.wrapped.request(*args, **options) for _ in range(2)))
        return answers[0]


async def test_wrapper_that_asks_twice_at_once(spender: Spender) -> None:
    """A wrapper that asks several times at once has each request booked as billed."""
    booking = await spender.spend(Agent(Ensemble(spender.model())))
    booking.assert_exact(2)


class Persistent(OpenAIChatModel):
    """A model of its own class that sends a request again if it fails."""

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        try:
            return await super().request(*args, **options)
        except ModelAPIError:
            return await super().request(*args, **options)


class Voting(OpenAIChatModel):
    """A model of its own class that asks twice, and takes the second answer."""

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        await super().request(*args, **options)
        return await super().request(*args, **options)


class Boasting(OpenAIChatModel):
    """A model of its own class that raises the limit of its requests."""

    async def request(
        self, messages: list[ModelMessage], model_settings: Any, model_request_parameters: ModelRequestParameters
    ) -> ModelResponse:
        more: Any = {**model_settings, "max_tokens": 50_000}
        return await super().request(messages, more, model_request_parameters)


class Plain(OpenAIChatModel):
    """A model of its own class that changes nothing."""

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        return await super().request(*args, **options)


class Delegate(Model):
    """A model that has another one answer, without being a wrapper."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self._inner = inner

    @property
    def model_name(self) -> str:
        return self._inner.model_name

    @property
    def system(self) -> str:
        return self._inner.system

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        return await self._inner.request(*args, **options)


def own_class(spender: Spender, model_class: type[OpenAIChatModel]) -> Model:
    """A model of a subclass."""
    return model_class("gpt-4o", provider=OpenAIProvider(openai_client=spender.client()))


async def test_subclass(spender: Spender) -> None:
    """A subclass of a model that calls the method it overrides is held and booked once."""
    booking = await spender.spend(Agent(own_class(spender, Plain)))
    booking.assert_exact()


async def test_subclass_that_sends_again(spender: Spender) -> None:
    """A subclass that sends a request again after a failure has both attempts booked."""
    spender.provider.reply(Reply(text="words " * 300, fault=HttpError(503)), DONE)
    booking = await spender.spend(Agent(own_class(spender, Persistent)))
    booking.assert_consistent()
    assert booking.spent >= booking.billed
    assert any(booking.estimated)


async def test_subclass_that_asks_twice(spender: Spender) -> None:
    """A subclass that asks twice for one answer has both requests booked."""
    spender.provider.reply(Reply(text="words " * 300), DONE)
    booking = await spender.spend(Agent(own_class(spender, Voting)))
    booking.assert_consistent()
    assert booking.spent == booking.billed


async def test_subclass_that_raises_the_limit(spender: Spender) -> None:
    """A subclass that raises the limit of a request after it is held is held for more, or not sent with it."""
    spender.provider.reply(Reply(text="words " * 20_000))
    booking = await spender.spend(Agent(own_class(spender, Boasting)))
    booking.assert_consistent()
    assert booking.spent == booking.billed
    assert booking.billed <= sum(span.held or 0 for span in booking.requests)


async def test_model_that_delegates(spender: Spender) -> None:
    """A model that has another one answer, without being a wrapper, is booked once."""
    booking = await spender.spend(Agent(Delegate(spender.model())))
    booking.assert_consistent()
    assert booking.spent == booking.billed
