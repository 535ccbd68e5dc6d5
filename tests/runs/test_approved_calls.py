"""Which calls an approval is for, and that each is executed at most once."""

import threading
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolResults, RunContext
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from handrail import (
    Answered,
    AwaitingApproval,
    Escalated,
    Failed,
    NotResumable,
    Runtime,
    govern,
    tool,
)
from handrail.testing import VirtualClock
from tests.runs.bank import (
    LOST,
    TAKEN_OVER,
    WAYS,
    Bank,
    agent_with,
    conditional,
    decide_by_approver,
    declared,
    governed,
    returned,
    states,
)
from tests.runs.scripts import Count, Script, calls, counts, says
from tests.runs.test_approvals import State, approvals, decide_all, run_until_approval


@pytest.fixture
def bank(runtime: Runtime, clock: VirtualClock) -> Bank:
    return Bank(runtime, clock)


@pytest.mark.parametrize("way", [*WAYS, "toolset"])
async def test_an_approved_call_is_executed_at_most_once(
    runtime: Runtime, clock: VirtualClock, bank: Bank, way: str
) -> None:
    """However a tool asks for approval: killed after its effect and resumed twice, it has acted once."""
    agent = agent_with(way, Script(says(calls("pay", order="o-1")), counts(1)), bank)
    paused = await run_until_approval(agent)
    await decide_by_approver(runtime, paused)
    bank.killed = True
    with pytest.raises(LOST):
        await agent.resume(paused.facts.run_id)
    clock.advance(TAKEN_OVER)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert outcome.reason == "action_uncertain"
    with pytest.raises(NotResumable):
        await agent.resume(paused.facts.run_id)
    assert bank.paid == ["o-1"]
    assert await states(runtime, paused.facts.run_id) == ["unknown_after_crash"]


@pytest.mark.parametrize("way", [*WAYS, "toolset"])
async def test_an_approved_call_is_executed(runtime: Runtime, bank: Bank, way: str) -> None:
    """However a tool asks for approval: once approved it is executed, and its approval says so."""
    script = Script(says(calls("pay", order="o-1")), counts(1))
    agent = agent_with(way, script, bank)
    paused = await run_until_approval(agent)
    assert bank.paid == []
    await decide_by_approver(runtime, paused)
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert (bank.paid, returned(script)) == (["o-1"], ["paid o-1"])
    [approval] = await approvals(runtime, paused.facts.run_id)
    assert (approval.state, approval.result, approval.attempts) == ("executed", "paid o-1", 1)


@pytest.mark.parametrize("way", [*WAYS, "toolset"])
async def test_a_caller_cannot_approve(bank: Bank, way: str) -> None:
    """A call that only the caller of `run` says is approved is proposed, and not executed."""
    agent = agent_with(way, Script(counts(1)), bank)
    history: list[Any] = [ModelRequest.user_text_prompt("hi"), ModelResponse([calls("pay", order="o-1")])]
    outcome = await agent.run(
        user="u", message_history=history, deferred_tool_results=DeferredToolResults(approvals={"pay-o-1": True})
    )
    assert isinstance(outcome, AwaitingApproval)
    assert bank.paid == []


async def test_an_id_that_the_model_uses_again(runtime: Runtime, bank: Bank) -> None:
    """A later call with the id of an executed one is a new call, with an approval of its own; so is one beside it."""
    twice = [ToolCallPart("pay", {"order": order}, tool_call_id="same") for order in ("2", "3")]
    script = Script(
        says(ToolCallPart("pay", {"order": "1"}, tool_call_id="same")),
        says(*twice),
        says(ToolCallPart("pay", {"order": "1"}, tool_call_id="same")),
        counts(1),
    )
    agent = governed(script, declared(bank))
    outcome: Any = await run_until_approval(agent)
    run_id = outcome.facts.run_id
    for expected in ([], ["1"], ["1", "2", "3"]):
        assert isinstance(outcome, AwaitingApproval)
        assert bank.paid == expected
        await decide_all(runtime, outcome)
        outcome = await agent.resume(run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1", "2", "3", "1"])
    stored = await approvals(runtime, run_id)
    assert [(one.round, one.call_id, one.state) for one in stored] == [
        (1, "same", "executed"),
        (2, "same_2", "executed"),
        (2, "same_3", "executed"),
        (3, "same_4", "executed"),
    ]


@pytest.mark.parametrize("rounds", [[3], [1, 1, 1], [2, 1]])
async def test_a_third_identical_call(runtime: Runtime, bank: Bank, rounds: list[int]) -> None:
    """The third identical approved call of a run is the fault looping, in one round or over several."""
    script = Script(
        *(says(*(ToolCallPart("pay", {"order": "1"}) for _ in range(number))) for number in rounds), counts(1)
    )
    agent = governed(script, declared(bank))
    outcome: Any = await run_until_approval(agent)
    run_id = outcome.facts.run_id
    for _ in rounds:
        assert isinstance(outcome, AwaitingApproval)
        await decide_all(runtime, outcome)
        outcome = await agent.resume(run_id)
    assert isinstance(outcome, Failed)
    assert (outcome.fault.code, bank.paid) == ("looping", ["1", "1"])
    stored = await approvals(runtime, run_id)
    assert sorted(one.state for one in stored) == ["executed", "executed", "withdrawn"]
    assert "pay was called 2 times" in next(one.reason or "" for one in stored if one.state == "withdrawn")


@pytest.mark.parametrize("streamed", [True, False])
async def test_calls_of_one_response_with_one_id(bank: Bank, streamed: bool) -> None:
    """Calls that a provider gives one id are several calls, streamed or not."""

    async def stream(_messages: Any, _info: Any) -> Any:
        yield {0: DeltaToolCall("pay", '{"order": "1"}', tool_call_id="x")}
        yield {1: DeltaToolCall("pay", '{"order": "2"}', tool_call_id="x")}

    async def handle(_ctx: Any, events: Any) -> None:
        async for _ in events:
            pass

    response = says(*(ToolCallPart("pay", {"order": order}, tool_call_id="x") for order in "12"))
    model = FunctionModel(stream_function=stream) if streamed else Script(response).model
    agent = govern(Agent(model, output_type=Count, tools=[declared(bank)]), name="a")
    options = {"event_stream_handler": handle} if streamed else {}
    paused = await run_until_approval(agent, **options)
    assert [approval.arguments for approval in paused.approvals] == [{"order": "1"}, {"order": "2"}]
    assert len({approval.call_id for approval in paused.approvals}) == 2


async def test_a_call_that_an_inner_agent_s_caller_approves(bank: Bank) -> None:
    """An agent inside a tool cannot execute a call that only its caller approved."""
    history: list[Any] = [ModelRequest.user_text_prompt("hi"), ModelResponse([calls("pay", order="1")])]
    approved = DeferredToolResults(approvals={"pay-1": True})
    inner = Agent(Script(counts(1)).model, output_type=Count, tools=[conditional("writes")(bank)])

    async def ask() -> str:
        await inner.run(message_history=history, deferred_tool_results=approved)
        return "asked"

    outcome = await governed(Script(says(calls("ask")), counts(1)), tool(ask, effect="reads")).run("hi", user="u")
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, bank.paid) == ("inner_action_blocked", [])


async def test_approved_and_denied_calls_in_one_response(runtime: Runtime, bank: Bank) -> None:
    """Of three calls in one response, the approved ones are executed in turn, and the model reads who denied one."""
    script = Script(says(*(calls("pay", order=order) for order in "123")), counts(1))
    agent = governed(script, declared(bank))
    paused = await run_until_approval(agent)
    decisions: tuple[State, ...] = ("approved", "denied", "approved")
    for approval, decision in zip(paused.approvals, decisions, strict=True):
        one = AwaitingApproval(approvals=(approval,), message="", facts=paused.facts)
        await decide_all(runtime, one, decision)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1", "3"])
    assert [str(content)[:6] for content in returned(script)] == ["paid 1", "A coll", "paid 3"]


@pytest.mark.parametrize("strategy", ["early", "graceful", "exhaustive"])
@pytest.mark.parametrize("sequential", [True, False])
async def test_several_calls_that_ask(runtime: Runtime, bank: Bank, strategy: Any, sequential: bool) -> None:
    """However Pydantic AI executes the calls of a response, each approved one is executed, in order."""

    async def pay(ctx: RunContext[Any], order: str) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        return await bank.pay(order)

    script = Script(says(*(calls("pay", order=order) for order in "123")), counts(1))
    agent = governed(script, tool(pay, effect="writes", sequential=sequential), end_strategy=strategy)
    paused = await run_until_approval(agent)
    await decide_by_approver(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1", "2", "3"])


async def test_some_calls_ask(runtime: Runtime, bank: Bank) -> None:
    """Over two rounds, calls below a limit are executed at once, and those above it once they are approved."""

    async def pay(ctx: RunContext[Any], amounts: list[int]) -> str:
        amount = amounts.pop()
        if amount > 10 and not ctx.tool_call_approved:
            raise ApprovalRequired
        if amount > 10:
            return await bank.pay(amount)
        bank.paid.append(amount)
        return "paid at once"

    rounds = [says(calls("pay", amounts=[0, 5]), calls("pay", amounts=[0, 20])), says(calls("pay", amounts=[30]))]
    agent = governed(Script(*rounds, counts(1)), tool(pay, effect="writes"))
    outcome: Any = await run_until_approval(agent)
    run_id = outcome.facts.run_id
    for paid, asked in (([5], [0, 20]), ([5, 20], [30])):
        assert (bank.paid, [one.arguments for one in outcome.approvals]) == (paid, [{"amounts": asked}])
        await decide_by_approver(runtime, outcome)
        outcome = await agent.resume(run_id)
    assert (type(outcome), bank.paid) == (Answered, [5, 20, 30])


@pytest.mark.parametrize("asked", [["role:lead"], "lead", 7, None])
async def test_an_approver_that_is_not_valid(bank: Bank, asked: Any) -> None:
    """What a tool passes with its question names the approver only if it is valid, and never makes it idempotent."""

    async def pay(order: str) -> str:
        assert order
        raise ApprovalRequired(metadata={"approver": asked, "idempotent": True, "client": threading.Lock()})

    paused = await run_until_approval(governed(Script(says(calls("pay", order="1"))), tool(pay, effect="writes")))
    [approval] = paused.approvals
    assert (approval.approver, approval.idempotent, bank.paid) == ("requester", False, [])
