"""Model classes that extend others, or choose among them: each request that reaches a provider is held and booked."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.usage import RequestUsage

from handrail import Answered, PriceOverride, Runtime, Settings, govern, use_runtime
from handrail.ceilings.ledger_queries import load_holds

MODEL = "m"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)
PRICE = 1_000 * 1_000 + 100 * 10_000
"""What USED costs, in nano-dollars."""


def answer(*_: Any) -> ModelResponse:
    return ModelResponse([TextPart("ok")], usage=USED)


class Again(FunctionModel):
    """Sends a second time if the first fails."""

    async def request(self, *args: Any) -> ModelResponse:
        try:
            return await super().request(*args)
        except ModelAPIError:
            return await super().request(*args)


class Vote(FunctionModel):
    """Sends three times at once."""

    async def request(self, *args: Any) -> ModelResponse:
        return (await asyncio.gather(*(super(Vote, self).request(*args) for _ in range(3))))[0]


class Longer(FunctionModel):
    """Raises the limit of the output after it was held."""

    async def request(self, messages: Any, settings: Any, parameters: Any) -> ModelResponse:
        longer: Any = {**settings, "max_tokens": 50_000}
        return await super().request(messages, longer, parameters)


class Twofold(Again):
    """Extends a class that extends one."""

    async def request(self, *args: Any) -> ModelResponse:
        return await super().request(*args)


class Router(Model):
    """Has another model answer."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner = inner

    @property
    def model_name(self) -> str:
        return MODEL

    @property
    def system(self) -> str:
        return "function"

    async def request(self, *args: Any) -> ModelResponse:
        return await self.inner.request(*args)


class Persistent(WrapperModel):
    """Has the wrapped model try again."""

    async def request(self, *args: Any) -> ModelResponse:
        try:
            return await self.wrapped.request(*args)
        except ModelAPIError:
            return await self.wrapped.request(*args)


def failing_first(error: Exception) -> Any:
    """A model function that raises `error` once."""
    errors = [error]

    def respond(*_: Any) -> ModelResponse:
        if errors:
            raise errors.pop()
        return answer()

    return respond


@pytest.fixture
def runtime(tmp_path: Path) -> Any:
    prices = {MODEL: PriceOverride(input=Decimal(1), output=Decimal(10))}
    opened = Runtime(Settings(base=tmp_path, store="handrail.db", prices=prices))
    with use_runtime(opened):
        yield opened
    opened.close()


async def booked(runtime: Runtime, model: Model) -> tuple[list[int | None], int]:
    """What each hold of a run with `model` was settled for, and the run's cost; everything is settled."""
    outcome = await govern(Agent(model), name="a").run("hi", user="u")
    assert isinstance(outcome, Answered)
    rows = await runtime.database.read(load_holds(outcome.facts.run_id))
    assert all(row.state == "settled" for row in rows)
    return [row.settled.cost if row.settled else None for row in rows], outcome.facts.cost


@pytest.mark.parametrize("model_class", [Again, Twofold])
async def test_a_model_that_sends_again(runtime: Runtime, model_class: type[FunctionModel]) -> None:
    """The second request has a hold of its own; the first is booked by how it ended."""
    down = ModelHTTPError(503, MODEL)
    costs, total = await booked(runtime, model_class(failing_first(down), model_name=MODEL))
    assert len(costs) == 2
    assert PRICE in costs
    assert total == sum(cost or 0 for cost in costs) > 2 * PRICE
    costs, total = await booked(runtime, model_class(failing_first(ModelHTTPError(429, MODEL)), model_name=MODEL))
    assert (sorted(cost or 0 for cost in costs), total) == ([0, PRICE], PRICE)
    costs, total = await booked(runtime, model_class(answer, model_name=MODEL))
    assert (costs, total) == ([PRICE], PRICE)


async def test_a_model_that_votes(runtime: Runtime) -> None:
    """Three requests at once are three bookings."""
    costs, total = await booked(runtime, Vote(answer, model_name=MODEL, settings={"max_tokens": 500}))
    assert (costs, total) == ([PRICE] * 3, 3 * PRICE)


async def test_a_model_that_raises_its_limit(runtime: Runtime) -> None:
    """A request with other settings than those that were held is held by itself, and limited again."""
    limits = []

    def respond(_messages: Any, info: Any) -> ModelResponse:
        limits.append(info.model_settings["max_tokens"])
        return answer()

    costs, total = await booked(runtime, Longer(respond, model_name=MODEL))
    assert (sorted(cost or 0 for cost in costs), total) == ([0, PRICE], PRICE)
    assert limits == [8_000]


@pytest.mark.parametrize("make", [Router, Persistent, FallbackModel])
async def test_a_model_that_others_answer_for(runtime: Runtime, make: Any) -> None:
    """A router or wrapper is booked what the model behind it is."""
    costs, total = await booked(runtime, make(FunctionModel(answer, model_name=MODEL)))
    assert (sum(cost or 0 for cost in costs), total) == (PRICE, PRICE)


async def test_each_leg_of_a_fallback_model(runtime: Runtime) -> None:
    """Each leg has its own hold: one that was turned down is free, one that failed is booked as held."""
    ok = FunctionModel(answer, model_name=MODEL)
    refused = FunctionModel(failing_first(ModelHTTPError(429, MODEL)), model_name=MODEL)
    assert (await booked(runtime, FallbackModel(refused, ok)))[0] == [0, PRICE]
    for failure in (ModelHTTPError(503, MODEL), IndexError("choices"), TimeoutError()):
        costs, _ = await booked(runtime, FallbackModel(FunctionModel(failing_first(failure), model_name=MODEL), ok))
        assert len(costs) == 2
        assert costs[0] is not None
        assert costs[0] > PRICE
        assert costs[1] == PRICE
