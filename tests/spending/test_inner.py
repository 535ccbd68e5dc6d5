"""Models that others than the run's own agent call: what they cost belongs to the run, and is booked as billed."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from handrail import (
    Answered,
    AwaitingApproval,
    Calibration,
    Confidence,
    FellBack,
    Governance,
    RunRequest,
    govern,
    tool,
)
from handrail.review.approvals.store import decide
from handrail.runs.runtime import current_runtime
from handrail.testing import HttpError, Reply, ReplyToolCall

from .conftest import Spender

ASK = Reply(tool_calls=[ReplyToolCall("ask", {})])
DONE = Reply(text="done")


def inner_by_run_model(_spender: Spender) -> Any:
    async def ask(ctx: RunContext[None]) -> str:
        model: Any = ctx.model
        return str((await Agent(model).run("hi")).output)

    return ask


def inner_by_own_model(spender: Spender) -> Any:
    inner = Agent(spender.model("messages"))

    async def ask() -> str:
        return (await inner.run("hi")).output

    return ask


async def ask_once(spender: Spender) -> str:
    """Runs an agent whose client lives as long as the event loop of its thread."""
    model: Any = spender.model("messages")
    answer = await Agent(model).run("hi")
    await model.client.close()
    return str(answer.output)


def inner_in_thread(spender: Spender) -> Any:
    def ask() -> str:
        return asyncio.run(ask_once(spender))

    return ask


def inner_streamed(spender: Spender) -> Any:
    inner = Agent(spender.model("messages"))

    async def ask() -> str:
        async with inner.run_stream("hi") as result:
            return await result.get_output()

    return ask


def inner_iterated(spender: Spender) -> Any:
    inner = Agent(spender.model("responses"))

    async def ask() -> str:
        async with inner.iter("hi") as run:
            async for _ in run:
                pass
        assert run.result is not None
        return run.result.output

    return ask


def inner_overridden(spender: Spender) -> Any:
    inner: Agent[None, str] = Agent()
    model = spender.model("messages")

    async def ask() -> str:
        with inner.override(model=model):
            return (await inner.run("hi")).output

    return ask


def direct(spender: Spender) -> Any:
    model = spender.model("messages")

    async def ask() -> str:
        return str((await model_request(model, [ModelRequest([UserPromptPart("hi")])])).parts)

    return ask


def direct_stream(spender: Spender) -> Any:
    model = spender.model("messages")

    async def ask() -> str:
        async with model_request_stream(model, [ModelRequest([UserPromptPart("hi")])]) as stream:
            async for _ in stream:
                pass
        return "done"

    return ask


def model_itself(spender: Spender) -> Any:
    model = spender.model("messages")

    async def ask() -> str:
        messages: Any = [ModelRequest([UserPromptPart("hi")])]
        return str((await model.request(messages, None, ModelRequestParameters())).parts)

    return ask


INNER = {
    "agent-by-the-runs-model": inner_by_run_model,
    "agent-by-its-own-model": inner_by_own_model,
    "agent-in-a-thread": inner_in_thread,
    "agent-run-stream": inner_streamed,
    "agent-iter": inner_iterated,
    "agent-override": inner_overridden,
    "direct-request": direct,
    "direct-stream": direct_stream,
    "model-request": model_itself,
}


@pytest.mark.parametrize("make_tool", [pytest.param(make, id=name) for name, make in INNER.items()])
async def test_inside_a_tool(spender: Spender, make_tool: Any) -> None:
    """What a tool spends on models belongs to the run, and is booked as billed."""
    spender.provider.reply(ASK, Reply(text="inner answer"), DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[make_tool(spender)]))
    booking.assert_exact(3)
    assert isinstance(booking.outcome, Answered)
    assert booking.outcome.facts.requests == 3


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, id=place) for place in ("route", "fallback", "deps", "instructions", "validator", "function")],
)
async def test_around_the_agent(spender: Spender, place: str) -> None:
    """A model that a route, fallback, deps factory, instruction or output function calls is governed."""
    helper = Agent(spender.model("messages"))

    async def help_out() -> str:
        return (await helper.run("hi")).output

    async def route(_request: RunRequest) -> Confidence:
        await help_out()
        return Confidence(
            value=0.9, calibration=Calibration(method="platt", cases=200, error=0.01, date=date(2026, 1, 1))
        )

    async def fallback(_request: RunRequest) -> str:
        return await help_out()

    async def deps(_request: RunRequest) -> str:
        return await help_out()

    async def validate(output: str) -> str:
        return output + await help_out()

    async def answer(text: str) -> str:
        return text + await help_out()

    options: dict[str, Any] = {"output_type": answer} if place == "function" else {}
    agent: Agent[Any, str] = Agent(spender.model(), deps_type=Any, **options)
    if place == "instructions":
        agent.instructions(help_out)
    if place == "validator":
        agent.output_validator(validate)
    if place == "function":
        spender.provider.reply(Reply(tool_calls=[ReplyToolCall("final_result", {"text": "ok"})]), DONE)
    if place == "fallback":
        spender.provider.reply(Reply(fault=HttpError(400)), DONE)
    governed: dict[str, Any] = {"route": route, "fallback": fallback, "deps": deps}
    options = {key: value for key, value in governed.items() if key == place}
    booking = await spender.spend(agent, govern_options=options)
    booking.assert_consistent()
    assert isinstance(booking.outcome, Answered | FellBack), booking.outcome
    assert booking.spent == booking.billed > 0
    assert len(booking.requests) == len(spender.provider.requests) == 2


async def test_agent_inside_an_agent_inside_a_tool(spender: Spender) -> None:
    """However deep an agent runs, its requests are held and booked."""
    deepest = Agent(spender.model("responses"))

    async def ask() -> str:
        return (await deepest.run("hi")).output

    middle = Agent(spender.model("messages"), tools=[ask])

    async def delegate() -> str:
        return (await middle.run("hi")).output

    spender.provider.reply(Reply(tool_calls=[ReplyToolCall("delegate", {})]), ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[delegate]))
    booking.assert_exact(5)


async def test_parallel_tools_with_inner_agents(spender: Spender) -> None:
    """Tools that run at the same time, each with an agent of its own, lose no request."""
    inner = Agent(spender.model("messages"))

    async def ask(number: int) -> str:
        return (await inner.run(f"question {number}")).output

    calls = [ReplyToolCall("ask", {"number": number}) for number in range(6)]
    spender.provider.reply(Reply(tool_calls=calls), DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(8)


async def test_inner_agent_with_a_malformed_answer(spender: Spender) -> None:
    """The run's one retry, used by an inner agent, is booked too."""
    broken = ReplyToolCall("final_result", {"response": "many"})
    inner = Agent(spender.model("messages"), output_type=int)

    async def ask() -> int:
        return (await inner.run("hi")).output

    good = ReplyToolCall("final_result", {"response": 1})
    spender.provider.reply(ASK, Reply(tool_calls=[broken]), Reply(tool_calls=[good]), DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(4)


async def test_inner_agent_unbounded(spender: Spender) -> None:
    """An inner agent's request without a bound is refused, and ends the run."""
    inner = Agent(spender.model("messages"), model_settings={"extra_body": {"max_tokens": 60_000}})

    async def ask() -> str:
        return (await inner.run("hi")).output

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(1)
    assert booking.outcome.refusal.unbounded == ("extra_body.max_tokens",)


async def test_governed_agent_inside_a_tool(spender: Spender) -> None:
    """A governed agent inside a tool is a run of its own under the same ceilings; together they are the bill."""
    inner = govern(Agent(spender.model("messages")), name="inner")

    async def ask() -> str:
        return (await inner.run("hi", user="u")).message

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    assert booking.discrepancies == ()
    assert booking.spent == booking.billed == sum(span.cost for span in booking.requests)
    assert len(booking.requests) == 3


async def test_capability(spender: Spender) -> None:
    """A run that `Governance` governs is booked as billed, with what its tools spend."""
    inner = Agent(spender.model("messages"))

    async def ask() -> str:
        return (await inner.run("hi")).output

    agent = Agent(spender.model(), tools=[ask], capabilities=[Governance(name="spender", user="u")])
    spender.provider.reply(ASK, DONE)

    async def run() -> None:
        await agent.run("hi")

    booking = await spender.spend(agent, run=run)
    booking.assert_exact(3)


async def test_task_that_outlives_the_run(spender: Spender) -> None:
    """A task that a run leaves behind cannot spend after its end."""
    inner = Agent(spender.model("messages"))
    ended = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def later() -> str:
        await ended.wait()
        return (await inner.run("hi")).output

    async def ask() -> str:
        tasks.append(asyncio.create_task(later()))
        return "started"

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(2)
    ended.set()
    with pytest.raises(Exception, match="has ended"):
        await tasks[0]
    assert spender.provider.billed == booking.spent


async def test_task_that_ends_after_the_run(spender: Spender) -> None:
    """A request that is under way when its run ends is not lost: what it may cost stays held."""
    inner = Agent(spender.model("messages"))
    tasks: list[asyncio.Task[Any]] = []

    async def ask() -> str:
        tasks.append(asyncio.create_task(inner.run("hi")))
        await spender.requests_received(2)
        return "started"

    spender.provider.reply(ASK, Reply(text="late", delay_s=0.4), DONE)
    agent = Agent(spender.model(), tools=[ask])
    booking = await spender.spend(agent)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert booking.discrepancies == ()
    assert booking.spent + booking.held >= booking.billed


async def test_inner_agents_in_a_thread_pool(spender: Spender) -> None:
    """Agents that a tool runs in a pool of threads, which do not inherit its context, are held and booked too."""

    async def ask() -> str:
        with ThreadPoolExecutor() as pool:
            return await asyncio.wrap_future(pool.submit(lambda: asyncio.run(ask_once(spender))))

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(3)


async def test_history_processor(spender: Spender) -> None:
    """An agent that summarises the history before each request is part of the run."""
    inner = Agent(spender.model("messages"))

    async def summarise(messages: list[ModelMessage]) -> list[ModelMessage]:
        await inner.run("hi")
        return messages

    booking = await spender.spend(Agent(spender.model(), capabilities=[ProcessHistory(summarise)]))
    booking.assert_exact(2)


async def test_tool_that_fails_after_spending(spender: Spender) -> None:
    """What a tool spent before it failed is booked, whether that is a fault or a programming error."""
    inner = Agent(spender.model("messages"))

    async def ask() -> str:
        raise TypeError(await inner.run("hi"))

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    booking.assert_exact(2)
    assert isinstance(booking.raised, TypeError)


async def test_capability_streamed(spender: Spender) -> None:
    """`run_stream` under `Governance` is booked as billed."""
    agent = Agent(spender.model(), capabilities=[Governance(name="spender", user="u")])
    spender.provider.reply(Reply(text="words " * 30))

    async def run() -> None:
        async with agent.run_stream("hi") as result:
            await result.get_output()

    booking = await spender.spend(agent, run=run)
    booking.assert_exact()


async def test_approved_action(spender: Spender) -> None:
    """A run that waits for a person and is resumed is booked as billed, before and after."""

    def refund(amount: int) -> str:
        return f"{amount} refunded"

    agent = govern(Agent(spender.model(), tools=[tool(refund, effect="irreversible")]), name="spender")
    spender.provider.reply(Reply(tool_calls=[ReplyToolCall("refund", {"amount": 5})]), DONE)

    async def run() -> Any:
        waiting = await agent.run("hi", user="u")
        assert isinstance(waiting, AwaitingApproval)
        assert waiting.facts.cost == spender.provider.billed
        runtime = current_runtime()
        [approval] = waiting.approvals
        await runtime.database.write(decide(approval.approval_id, "approved", "u", {}, None, runtime.clock.now()))
        return await agent.resume(waiting.facts.run_id)

    booking = await spender.spend(Agent(), run=run)
    booking.assert_exact(2)
    assert isinstance(booking.outcome, Answered)


async def test_inner_agent_with_a_run_of_its_own(spender: Spender) -> None:
    """An inner agent that brings `Governance` is a run of its own, and its own user pays for it."""
    inner = Agent(spender.model("messages"), capabilities=[Governance(name="inner", user="another")])

    async def ask() -> str:
        return (await inner.run("hi")).output

    spender.provider.reply(ASK, DONE)
    booking = await spender.spend(Agent(spender.model(), tools=[ask]))
    assert booking.discrepancies == ()
    assert booking.spent == booking.billed
    assert sorted(span.user for span in booking.requests) == ["another", "u", "u"]
