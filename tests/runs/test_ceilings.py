"""A run under ceilings: every request is held and then settled, or refused if it does not fit."""

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError, ModelTimeoutError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import (
    Answered,
    CeilingReached,
    Governance,
    GovernedAgent,
    Refused,
    Runtime,
    Settings,
    govern,
    use_runtime,
)
from handrail.ceilings.ledger_queries import HoldView, find_discrepancies, load_holds
from handrail.config.settings import Ceilings, PriceOverride
from handrail.config.sources import load_settings
from handrail.runs.store.queries import list_runs, load_run
from handrail.testing import VirtualClock
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Script, calls, says

MODEL = "priced"
# One cent per thousand input tokens, ten cents per thousand output tokens.
PRICE = PriceOverride(input=Decimal(10), output=Decimal(100))
CENT = 10_000_000


@pytest.fixture
def open_runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Any]:
    """A function that opens a runtime with the given ceilings; all share one store."""
    runtimes: list[Runtime] = []

    def open_with(**ceilings: Any) -> Runtime:
        settings = Settings(base=tmp_path, store="spent.db", prices={MODEL: PRICE}, ceilings=Ceilings(**ceilings))
        runtimes.append(Runtime(settings, clock=clock))
        return runtimes[-1]

    yield open_with
    for runtime in runtimes:
        runtime.close()


def response_with(usage: RequestUsage, text: str = "done") -> ModelResponse:
    return ModelResponse([TextPart(text)], usage=usage, model_name=MODEL)


def agent_of(*turns: ModelResponse | BaseException, **options: Any) -> tuple[GovernedAgent[None, str], Script]:
    script = Script(*turns)
    script.model = FunctionModel(script._respond, model_name=MODEL)
    return govern(Agent(script.model, **options), name="a"), script


async def holds(runtime: Runtime, run_id: str) -> Sequence[HoldView]:
    return await runtime.database.read(load_holds(run_id))


async def spans(runtime: Runtime, outcome: Any) -> list[Span]:
    _, trace_spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    return trace_spans


async def test_held_and_settled(open_runtime: Any) -> None:
    """A request is held at its maximum and settled at its real cost, and the ledger is consistent."""
    agent, script = agent_of(
        response_with(RequestUsage(input_tokens=1_000, output_tokens=100)), model_settings={"max_tokens": 500}
    )
    with use_runtime(open_runtime()) as runtime:
        outcome = await agent.run("hi", user="u", tenant="acme")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert outcome.facts.cost == 2 * CENT
        assert hold.settled is not None
        assert (hold.state, hold.settled.cost) == ("settled", 2 * CENT)
        assert hold.held.output_tokens == 500
        assert hold.held.cost >= 5 * CENT
        assert await runtime.database.read(find_discrepancies()) == []
    assert script.infos[0].model_settings == {"max_tokens": 500, "max_retries": 0}


async def test_a_run_out_of_money_is_refused(open_runtime: Any, clock: VirtualClock) -> None:
    """A request that does not fit into the user's day is refused with the arithmetic; a day later it fits again."""
    turns = [response_with(RequestUsage(input_tokens=1_000, output_tokens=100)) for _ in range(2)]
    agent, script = agent_of(*turns, model_settings={"max_tokens": 500})
    with use_runtime(open_runtime(user_day=Decimal("0.07"), time_zone="Europe/Berlin")) as runtime:
        assert isinstance(await agent.run("hi", user="u"), Answered)
        refused = await agent.run("hi", user="u")
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.refusal.spent, refused.refusal.held) == ("user", 2 * CENT, 0)
        assert refused.resets_at is not None
        assert refused.resets_at.isoformat() == "2026-01-01T23:00:00+00:00"
        assert "available again on 2 January 2026 at 00:00 (CET)" in refused.message
        assert (refused.facts.requests, refused.facts.cost) == (0, 0)
        assert isinstance(await agent.run("hi", user="another"), Answered)
        clock.advance(24 * 3600)
        script._turns.append(turns[0])
        assert isinstance(await agent.run("hi", user="u"), Answered)
        run = await runtime.database.read(load_run(refused.facts.run_id, clock.now()))
        assert (run.status, run.path, run.requests) == ("refused", "refused", 0)


async def test_refused_after_a_tool_call(open_runtime: Any) -> None:
    """A run that reaches its ceiling after a tool call is refused there; what it used is settled and traced."""

    def read_file() -> str:
        return "x" * 10_000

    agent, _ = agent_of(
        ModelResponse([calls("read_file")], usage=RequestUsage(input_tokens=900, output_tokens=10)),
        tools=[read_file],
        model_settings={"max_tokens": 100},
    )
    with use_runtime(open_runtime(run_input_tokens=9_900)) as runtime:
        refused = await agent.run("hi", user="u")
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.refusal.unit, refused.refusal.fits) == ("run", "input_tokens", 9_000)
        assert (refused.resets_at, refused.facts.requests) == (None, 1)
        [refusal] = [span for span in await spans(runtime, refused) if span.name == "refuse"]
        assert refusal.error_type == "ceiling_run"
        assert "9,000 input tokens left" in refusal.attributes["handrail.refusal"]
        assert await runtime.database.read(find_discrepancies()) == []


async def test_output_is_limited_to_the_hold(open_runtime: Any) -> None:
    """The model's maximum output is what the run has left, and at most what the settings ask for."""

    def find_order() -> int:
        return 1

    first = ModelResponse([calls("find_order")], usage=RequestUsage(input_tokens=10, output_tokens=700))
    agent, script = agent_of(first, says("two"), tools=[find_order], model_settings={"max_tokens": 600})
    with use_runtime(open_runtime(run_output_tokens=1_000)):
        await agent.run("hi", user="u")
    assert [(info.model_settings or {}).get("max_tokens") for info in script.infos] == [600, 300]


async def test_the_default_output_limit(open_runtime: Any) -> None:
    """Without a configured maximum output, a request gets one of 4,096 tokens, which is sent to the model."""
    agent, script = agent_of(says("two"))
    with use_runtime(open_runtime()):
        await agent.run("hi", user="u")
    assert (script.infos[0].model_settings or {}).get("max_tokens") == 4_096


class UnpricedModel(FunctionModel):
    """A model without a price that can count tokens."""

    counted = 0

    async def count_tokens(self, *_arguments: Any) -> RequestUsage:
        self.counted += 1
        return RequestUsage(input_tokens=1_000)


async def test_tokens_are_counted_before_a_refusal(open_runtime: Any) -> None:
    """A long text whose bytes do not fit is counted by the model, once, and admitted by that count."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return response_with(RequestUsage(input_tokens=1_000, output_tokens=1))

    model = UnpricedModel(reply, model_name=MODEL)
    with use_runtime(open_runtime(run_input_tokens=2_000)) as runtime:
        agent = govern(Agent(model), name="a")
        assert isinstance(await agent.run("hi", user="u"), Answered)
        assert model.counted == 0
        outcome = await agent.run("word " * 1_000, user="u")
        assert (type(outcome), model.counted) == (Answered, 1)
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert 1_000 < hold.held.input_tokens < 1_100


async def test_an_unknown_price(open_runtime: Any) -> None:
    """A model without a price is refused if there is a ceiling on money, and used if there is none."""

    class Unpriced(FunctionModel):
        @property
        def system(self) -> str:
            return "nowhere"

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return says("two")

    agent = govern(Agent(Unpriced(reply, model_name="secret")), name="a")
    with use_runtime(open_runtime()):
        refused = await agent.run("hi", user="u")
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.resets_at) == ("price", None)
    with use_runtime(open_runtime(user_day=None)):
        assert isinstance(await agent.run("hi", user="u"), Answered)


def _refused_connection() -> Exception:
    error = ModelConnectionError(MODEL, "no connection")
    error.__cause__ = ConnectionRefusedError()
    return error


@pytest.mark.parametrize(
    ("fault", "paid"),
    [
        (ModelHTTPError(400, MODEL), False),
        (ModelHTTPError(429, MODEL), False),
        (ModelHTTPError(408, MODEL), True),
        (ModelHTTPError(499, MODEL), True),
        (ModelHTTPError(503, MODEL), True),
        (ModelHTTPError(504, MODEL), True),
        (ModelHTTPError(524, MODEL), True),
        (ModelHTTPError(200, MODEL, {"error": "overloaded"}), True),
        (_refused_connection(), False),
        (ModelTimeoutError(MODEL, "too slow"), True),
        (ModelConnectionError(MODEL, "connection reset"), True),
    ],
    ids=[
        "rejected",
        "too many",
        "gave up",
        "left",
        "down",
        "gateway",
        "proxy",
        "in a 200",
        "unsent",
        "slow",
        "cut off",
    ],
)
async def test_a_request_without_an_answer(open_runtime: Any, fault: Exception, paid: bool) -> None:
    """A request that was turned down or never sent costs nothing; one with an unknown end costs what was held."""
    agent, _ = agent_of(fault, model_settings={"max_tokens": 100})
    with use_runtime(open_runtime()) as runtime:
        outcome = await agent.run("hi", user="u")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert hold.settled is not None
        assert hold.state == "settled"
        assert hold.settled.cost == (hold.held.cost if paid else 0)
        assert outcome.facts.cost == hold.settled.cost


async def test_a_cancelled_request_is_charged(open_runtime: Any, clock: VirtualClock) -> None:
    """A run cancelled during a request is charged what was held: the provider may have served the request."""
    began = asyncio.Event()

    async def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    with use_runtime(open_runtime()) as runtime:
        running = asyncio.ensure_future(
            govern(Agent(FunctionModel(reply, model_name=MODEL)), name="a").run("hi", user="u")
        )
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        [run] = await runtime.database.read(list_runs(clock.now(), tenant=None, agent=None, limit=9, before=None))
        [hold] = await holds(runtime, run.run_id)
        assert (hold.state, run.fault) == ("settled", "cancelled")
        assert run.cost == hold.held.cost > 0


async def test_a_model_that_reports_no_tokens(open_runtime: Any) -> None:
    """An answer without token counts costs what was held."""

    class Silent(FunctionModel):
        async def request(self, *arguments: Any) -> ModelResponse:
            response = await super().request(*arguments)
            response.usage = RequestUsage()
            return response

    agent = govern(Agent(Silent(lambda _messages, _info: says("done"), model_name=MODEL)), name="a")
    with use_runtime(open_runtime()) as runtime:
        outcome = await agent.run("hi", user="u")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert outcome.facts.cost == hold.held.cost > 0


async def test_an_abandoned_stream_is_charged(open_runtime: Any) -> None:
    """An abandoned stream costs what was held for its input, and its output so far."""

    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> Any:
        yield "one "
        await asyncio.Event().wait()

    agent = govern(Agent(FunctionModel(stream_function=stream, model_name=MODEL)), name="a")
    with use_runtime(open_runtime()) as runtime:
        events = agent.stream("hi", user="u")
        await anext(events)
        await events.aclose()
        [run] = await runtime.database.read(
            list_runs(runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        [hold] = await holds(runtime, run.run_id)
        assert hold.settled is not None
        assert 0 < hold.settled.cost < hold.held.cost
        assert hold.state == "settled"


async def test_governance_raises(open_runtime: Any) -> None:
    """With Governance the caller gets CeilingReached with the arithmetic, and the run is recorded as refused."""
    agent, _ = agent_of(says("never"))
    with use_runtime(open_runtime(user_day=Decimal(0))) as runtime:
        with pytest.raises(CeilingReached, match="user: ") as caught:
            await agent.agent.run("hi", capabilities=[Governance(name="a", user="u")])
        assert caught.value.refusal.limit == 0
        [run] = await runtime.database.read(
            list_runs(runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        assert (run.status, run.path) == ("refused", "refused")


async def test_concurrent_runs_stay_below_the_ceiling(open_runtime: Any) -> None:
    """Of fifty concurrent runs on a daily budget for ten, ten are answered and forty refused; no more is spent."""
    usage = RequestUsage(input_tokens=1_000, output_tokens=1_000)

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return response_with(usage)

    model = FunctionModel(reply, model_name=MODEL)
    agent = govern(Agent(model, model_settings={"max_tokens": 1_000}), name="a")
    with use_runtime(open_runtime(user_day=Decimal("1.20"))) as runtime:
        outcomes = await asyncio.gather(*(agent.run("hi", user="u") for _ in range(50)))
        answered = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
        assert {type(outcome) for outcome in outcomes} == {Answered, Refused}
        assert sum(outcome.facts.cost for outcome in outcomes) == 11 * CENT * len(answered) <= 120 * CENT
        assert await runtime.database.read(find_discrepancies()) == []


def test_ceilings_come_from_the_settings(tmp_path: Path) -> None:
    """A runtime applies the ceilings of the settings file."""
    (tmp_path / "handrail.toml").write_text("[ceilings]\nrun_output_tokens = 50\nuser_day = 1\n")
    runtime = Runtime(load_settings(tmp_path, {}))
    assert (runtime.limits.run_output_tokens, runtime.limits.user_day) == (50, 100 * CENT)
    runtime.close()
