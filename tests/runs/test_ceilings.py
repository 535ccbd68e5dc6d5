"""A run under its ceilings: held before every request, settled after it, refused where it does not fit."""

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
from handrail.ceilings.ledger_queries import HoldView, audit, load_holds
from handrail.config.settings import Ceilings, Price, load_settings
from handrail.runs.store.runs import list_runs, load_run
from handrail.testing import VirtualClock
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Script, calls, says

MODEL = "priced"
# A thousand input tokens cost a cent, a thousand output tokens ten.
PRICE = Price(input=Decimal(10), output=Decimal(100))
CENT = 10_000_000


@pytest.fixture
def opened(tmp_path: Path, clock: VirtualClock) -> Iterator[Any]:
    """Makes runtimes with ceilings of the test's choice, on one store."""
    made: list[Runtime] = []

    def open_(**ceilings: Any) -> Runtime:
        settings = Settings(base=tmp_path, store="spent.db", prices={MODEL: PRICE}, ceilings=Ceilings(**ceilings))
        made.append(Runtime(settings, clock=clock))
        return made[-1]

    yield open_
    for each in made:
        each.close()


def using(usage: RequestUsage, text: str = "done") -> ModelResponse:
    return ModelResponse([TextPart(text)], usage=usage, model_name=MODEL)


def agent_of(*turns: ModelResponse | BaseException, **options: Any) -> tuple[GovernedAgent[None, str], Script]:
    script = Script(*turns)
    script.model = FunctionModel(script._respond, model_name=MODEL)
    return govern(Agent(script.model, **options), name="a"), script


async def holds(runtime: Runtime, run_id: str) -> Sequence[HoldView]:
    return await runtime.database.read(lambda conn: load_holds(conn, run_id))


async def spans(runtime: Runtime, outcome: Any) -> list[Span]:
    _, found = await runtime.database.read(lambda conn: load_trace(conn, outcome.facts.trace_id, None))
    return found


async def test_held_and_settled(opened: Any) -> None:
    """A request is held for at its worst and settled at what it used, which the run costs; the books are right."""
    agent, script = agent_of(
        using(RequestUsage(input_tokens=1_000, output_tokens=100)), model_settings={"max_tokens": 500}
    )
    with use_runtime(opened()) as runtime:
        outcome = await agent.run("hi", user="u", tenant="acme")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert outcome.facts.cost == 2 * CENT
        assert hold.settled is not None
        assert (hold.state, hold.settled.cost) == ("settled", 2 * CENT)
        assert hold.held.output_tokens == 500
        assert hold.held.cost >= 5 * CENT
        assert await runtime.database.read(audit) == []
    assert script.infos[0].model_settings == {"max_tokens": 500, "max_retries": 0}


async def test_a_run_out_of_money_is_refused(opened: Any, clock: VirtualClock) -> None:
    """What does not fit into the user's day is refused with the arithmetic, a day later it fits again."""
    turns = [using(RequestUsage(input_tokens=1_000, output_tokens=100)) for _ in range(2)]
    agent, script = agent_of(*turns, model_settings={"max_tokens": 500})
    with use_runtime(opened(user_day=Decimal("0.07"), time_zone="Europe/Berlin")) as runtime:
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
        run = await runtime.database.read(lambda conn: load_run(conn, refused.facts.run_id, clock.now()))
        assert (run.status, run.path, run.requests) == ("refused", "refused", 0)


async def test_a_refusal_in_the_midst(opened: Any) -> None:
    """A run that reaches its ceiling after a tool call is refused there; what it used is booked and traced."""

    def look() -> str:
        return "x" * 10_000

    agent, _ = agent_of(
        ModelResponse([calls("look")], usage=RequestUsage(input_tokens=900, output_tokens=10)),
        tools=[look],
        model_settings={"max_tokens": 100},
    )
    with use_runtime(opened(run_input_tokens=9_900)) as runtime:
        refused = await agent.run("hi", user="u")
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.refusal.unit, refused.refusal.fits) == ("run", "input_tokens", 9_000)
        assert (refused.resets_at, refused.facts.requests) == (None, 1)
        [refusal] = [span for span in await spans(runtime, refused) if span.name == "refuse"]
        assert refusal.error_type == "ceiling_run"
        assert "9,000 input tokens fits" in refusal.attributes["handrail.refusal"]
        assert await runtime.database.read(audit) == []


async def test_output_is_forced_to_what_is_held(opened: Any) -> None:
    """The longest answer that a model may give is what the run has left, and no more than was asked for."""

    def look() -> int:
        return 1

    first = ModelResponse([calls("look")], usage=RequestUsage(input_tokens=10, output_tokens=700))
    agent, script = agent_of(first, says("two"), tools=[look], model_settings={"max_tokens": 600})
    with use_runtime(opened(run_output_tokens=1_000)):
        await agent.run("hi", user="u")
    assert [(info.model_settings or {}).get("max_tokens") for info in script.infos] == [600, 300]


async def test_the_length_that_nobody_said(opened: Any) -> None:
    """An agent that sets no length gets one: 4,096 tokens, which the model is told."""
    agent, script = agent_of(says("two"))
    with use_runtime(opened()):
        await agent.run("hi", user="u")
    assert (script.infos[0].model_settings or {}).get("max_tokens") == 4_096


class Dearer(FunctionModel):
    """A model without a price, which can count tokens."""

    counted = 0

    async def count_tokens(self, *_asked: Any) -> RequestUsage:
        self.counted += 1
        return RequestUsage(input_tokens=1_000)


async def test_a_loose_bound_is_tightened_before_it_refuses(opened: Any) -> None:
    """A long text whose bytes do not fit is counted by the model, once, and admitted by the count."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return using(RequestUsage(input_tokens=1_000, output_tokens=1))

    model = Dearer(reply, model_name=MODEL)
    with use_runtime(opened(run_input_tokens=2_000)) as runtime:
        agent = govern(Agent(model), name="a")
        assert isinstance(await agent.run("hi", user="u"), Answered)
        assert model.counted == 0
        outcome = await agent.run("word " * 1_000, user="u")
        assert (type(outcome), model.counted) == (Answered, 1)
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert 1_000 < hold.held.input_tokens < 1_100


async def test_a_price_that_nobody_knows(opened: Any) -> None:
    """A model without a price is refused under a ceiling on money, and runs where there is none."""

    class Unpriced(FunctionModel):
        @property
        def system(self) -> str:
            return "nowhere"

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return says("two")

    agent = govern(Agent(Unpriced(reply, model_name="secret")), name="a")
    with use_runtime(opened()):
        refused = await agent.run("hi", user="u")
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.resets_at) == ("price", None)
    with use_runtime(opened(user_day=None)):
        assert isinstance(await agent.run("hi", user="u"), Answered)


def _refused_connection() -> Exception:
    error = ModelConnectionError(MODEL, "no connection")
    error.__cause__ = ConnectionRefusedError()
    return error


@pytest.mark.parametrize(
    ("fault", "paid"),
    [
        (ModelHTTPError(503, MODEL), False),
        (_refused_connection(), False),
        (ModelTimeoutError(MODEL, "too slow"), True),
        (ModelConnectionError(MODEL, "connection reset"), True),
    ],
    ids=["turned down", "never sent", "too slow", "cut off"],
)
async def test_a_request_without_an_answer(opened: Any, fault: Exception, paid: bool) -> None:
    """A request that was turned down or never sent costs nothing; one whose end nobody knows costs what was held."""
    agent, _ = agent_of(fault, model_settings={"max_tokens": 100})
    with use_runtime(opened()) as runtime:
        outcome = await agent.run("hi", user="u")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert hold.settled is not None
        assert hold.state == "settled"
        assert hold.settled.cost == (hold.held.cost if paid else 0)
        assert outcome.facts.cost == hold.settled.cost


async def test_a_cancelled_request_is_paid_for(opened: Any, clock: VirtualClock) -> None:
    """A run that is cancelled while its model works books what was held: the model may have worked on to its end."""
    began = asyncio.Event()

    async def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    with use_runtime(opened()) as runtime:
        running = asyncio.ensure_future(
            govern(Agent(FunctionModel(reply, model_name=MODEL)), name="a").run("hi", user="u")
        )
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        [run] = await runtime.database.read(
            lambda conn: list_runs(conn, clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        [hold] = await holds(runtime, run.run_id)
        assert (hold.state, run.fault) == ("settled", "cancelled")
        assert run.cost == hold.held.cost > 0


async def test_a_model_that_reports_no_tokens(opened: Any) -> None:
    """An answer without a count of tokens is booked at what was held, not as free."""

    class Silent(FunctionModel):
        async def request(self, *asked: Any) -> ModelResponse:
            response = await super().request(*asked)
            response.usage = RequestUsage()
            return response

    agent = govern(Agent(Silent(lambda _messages, _info: says("done"), model_name=MODEL)), name="a")
    with use_runtime(opened()) as runtime:
        outcome = await agent.run("hi", user="u")
        [hold] = await holds(runtime, outcome.facts.run_id)
        assert outcome.facts.cost == hold.held.cost > 0


async def test_an_abandoned_stream_is_paid_for(opened: Any) -> None:
    """A stream that its reader leaves is booked: what was held for the input, and what came."""

    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> Any:
        yield "one "
        await asyncio.Event().wait()

    agent = govern(Agent(FunctionModel(stream_function=stream, model_name=MODEL)), name="a")
    with use_runtime(opened()) as runtime:
        events = agent.stream("hi", user="u")
        await anext(events)
        await events.aclose()
        [run] = await runtime.database.read(
            lambda conn: list_runs(conn, runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        [hold] = await holds(runtime, run.run_id)
        assert hold.settled is not None
        assert 0 < hold.settled.cost < hold.held.cost
        assert hold.state == "settled"


async def test_the_capability_raises(opened: Any) -> None:
    """Who drives the agent gets CeilingReached with the arithmetic, and the run is recorded as refused."""
    agent, _ = agent_of(says("never"))
    with use_runtime(opened(user_day=Decimal(0))) as runtime:
        with pytest.raises(CeilingReached, match="user: ") as caught:
            await agent.agent.run("hi", capabilities=[Governance(name="a", user="u")])
        assert caught.value.refusal.limit == 0
        [run] = await runtime.database.read(
            lambda conn: list_runs(conn, runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        assert (run.status, run.path) == ("refused", "refused")


async def test_many_at_once_never_exceed_the_day(opened: Any) -> None:
    """Of fifty runs at once on a day's money for ten, ten are answered, forty refused, and no more is spent."""
    usage = RequestUsage(input_tokens=1_000, output_tokens=1_000)

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return using(usage)

    model = FunctionModel(reply, model_name=MODEL)
    agent = govern(Agent(model, model_settings={"max_tokens": 1_000}), name="a")
    with use_runtime(opened(user_day=Decimal("1.20"))) as runtime:
        outcomes = await asyncio.gather(*(agent.run("hi", user="u") for _ in range(50)))
        answered = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
        assert {type(outcome) for outcome in outcomes} == {Answered, Refused}
        assert sum(outcome.facts.cost for outcome in outcomes) == 11 * CENT * len(answered) <= 120 * CENT
        assert await runtime.database.read(audit) == []


def test_ceilings_come_from_the_settings(tmp_path: Path) -> None:
    """The file's ceilings are those that a runtime applies."""
    (tmp_path / "handrail.toml").write_text("[ceilings]\nrun_output_tokens = 50\nuser_day = 1\n")
    runtime = Runtime(load_settings(tmp_path, {}))
    assert (runtime.limits.run_output_tokens, runtime.limits.user_day) == (50, 100 * CENT)
    runtime.close()
