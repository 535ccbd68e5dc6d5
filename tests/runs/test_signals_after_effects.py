"""What an approved tool did is not judged by the type of an exception alone, and its approver is not lost."""

import asyncio
import threading
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolResults

from handrail import Answered, AwaitingApproval, Escalated, Runtime, StillExecuting, govern, tool
from handrail.review.approvals.model import EXECUTION_LEASE
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide, settle_uncertain
from handrail.testing import VirtualClock

from .scripts import Script, calls, says

ROLES = {"lead": ("mia",)}


async def approve(runtime: Runtime, outcome: Any, person: str = "u") -> None:
    assert isinstance(outcome, AwaitingApproval)
    now = runtime.clock.now()
    for approval in outcome.approvals:
        await runtime.database.write(decide(approval.approval_id, "approved", person, ROLES, None, now))


async def states(runtime: Runtime, outcome: Any) -> list[str]:
    rows = await runtime.database.read(load_approvals(outcome.facts.run_id, runtime.clock.now()))
    return [row.state for row in rows]


async def test_a_tool_that_takes_too_long(runtime: Runtime) -> None:
    """A tool that Pydantic AI stops for its time may have acted: a person finds out."""
    paid = []

    async def pay() -> str:
        paid.append(1)
        await asyncio.sleep(60)
        return "paid"

    script = Script(says(calls("pay")), says(calls("pay")), says("done"))
    agent = govern(Agent(script.model, tools=[tool(pay, effect="irreversible", timeout=0.05)]), name="a")
    paused = await agent.run("hi", user="u")
    await approve(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, paid) == ("action_uncertain", [1])
    assert await states(runtime, paused) == ["failed"]


async def test_a_hook_that_rejects_what_a_tool_did(runtime: Runtime) -> None:
    """A hook that raises ModelRetry after the tool does not say that the tool did not act."""

    class Picky(AbstractCapability[Any]):
        async def after_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, result: Any) -> Any:  # noqa: ARG002
            raise ModelRetry("another one, please")

    paid = []

    def pay() -> str:
        paid.append(1)
        return "paid"

    script = Script(says(calls("pay")), says("done"))
    agent = govern(Agent(script.model, tools=[tool(pay, effect="irreversible")], capabilities=[Picky()]), name="a")
    paused = await agent.run("hi", user="u")
    await approve(runtime, paused)
    assert isinstance(await agent.resume(paused.facts.run_id), Escalated)
    assert await states(runtime, paused) == ["failed"]
    assert paid == [1]


@pytest.mark.parametrize("given", [False, True])
async def test_a_caller_cannot_approve(given: bool) -> None:
    """A call that a caller says is approved waits for others: for whom the tool names, or an operator has to name."""
    paid = []

    def pay(ctx: RunContext[None]) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"approver": "role:lead"})
        paid.append(1)
        return "paid"

    script = Script(says(calls("pay")), says("done"))
    agent = govern(Agent(script.model, tools=[pay]), name="a")
    if given:
        plain = Script(says(calls("pay")))
        history = (
            await Agent(plain.model, tools=[pay], output_type=[str, DeferredToolRequests]).run("hi")
        ).all_messages()
        [call_id] = [part.tool_call_id for part in history[-1].parts if isinstance(part, ToolCallPart)]
        script = Script(says("done"))
        agent = govern(Agent(script.model, tools=[pay]), name="a")
        approved = DeferredToolResults(approvals={call_id: True})
        paused = await agent.run(None, user="u", message_history=history, deferred_tool_results=approved)
    else:
        paused = await agent.run("hi", user="u")
    assert isinstance(paused, AwaitingApproval)
    approver = "role:approver-of-pay" if given else "role:lead"
    assert [approval.approver for approval in paused.approvals] == [approver]
    assert paid == []


async def test_a_changed_call_keeps_its_approver(runtime: Runtime) -> None:
    """A call that is asked again because it has changed is asked of those who had to approve it."""

    def small(ctx: RunContext[None], amount: int = 5) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"approver": "role:lead"})
        return f"paid {amount}"

    def large(ctx: RunContext[None], amount: int = 900) -> str:
        return small(ctx, amount)

    def agent_with(function: Any) -> Any:
        function.__name__ = "pay"
        return govern(Agent(Script(says(calls("pay")), says("done")).model, tools=[function]), name="a")

    paused = await agent_with(small).run("hi", user="u")
    await approve(runtime, paused, "mia")
    again = await agent_with(large).resume(paused.facts.run_id)
    assert isinstance(again, AwaitingApproval)
    assert [approval.approver for approval in again.approvals] == ["role:lead"]
    assert [dict(approval.arguments) for approval in again.approvals] == [{"amount": 900}]


async def test_a_settlement_by_a_slow_clock(runtime: Runtime) -> None:
    """A run goes on with a settlement whatever the clock of the machine says on which people settled."""
    attempts = []

    def pay() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("the bank hung up")
        return "paid"

    script = Script(says(calls("pay")), says("done"))
    agent = govern(Agent(script.model, tools=[tool(pay, effect="irreversible")]), name="a")
    paused = await agent.run("hi", user="u")
    await approve(runtime, paused)
    assert isinstance(await agent.resume(paused.facts.run_id), Escalated)
    [approval] = await runtime.database.read(load_approvals(paused.facts.run_id, runtime.clock.now()))
    earlier = runtime.clock.now().replace(year=2025)
    await runtime.database.write(settle_uncertain(approval.approval_id, False, "u", ROLES, None, earlier))
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert len(attempts) == 2


async def test_results_whose_own_code_fails(runtime: Runtime) -> None:
    """A result that cannot even be written as text does not hide that the action was executed."""

    class Awkward:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    def returning(value: Any) -> Any:
        def pay() -> Any:
            return value

        return pay

    for value in (10**6000, Awkward()):
        script = Script(says(calls("pay")), says("done"))
        agent = govern(Agent(script.model, tools=[tool(returning(value), effect="irreversible")]), name="a")
        paused = await agent.run("hi", user="u")
        await approve(runtime, paused)
        await agent.resume(paused.facts.run_id)
        assert await states(runtime, paused) == ["executed"]


async def test_a_thread_that_goes_on_after_a_timeout(runtime: Runtime, clock: VirtualClock) -> None:
    """An action whose thread may still run is neither repeated nor asked about until its lease has ended."""
    paid: list[int] = []
    entered, go, done = threading.Event(), threading.Event(), threading.Event()

    def pay() -> str:
        entered.set()
        go.wait(20)
        paid.append(1)
        done.set()
        return "paid"

    def happened(_key: str, _arguments: Any) -> bool:
        return bool(paid)

    script = Script(says(calls("pay")), says("done"))
    agent = govern(Agent(script.model, tools=[tool(pay, effect="irreversible", reconcile=happened)]), name="a")
    paused = await agent.run("hi", user="u")
    await approve(runtime, paused)
    resuming = asyncio.create_task(agent.resume(paused.facts.run_id))
    await asyncio.to_thread(entered.wait, 20)
    resuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resuming
    with pytest.raises(StillExecuting):
        await agent.resume(paused.facts.run_id)
    go.set()
    await asyncio.to_thread(done.wait, 20)
    clock.advance(EXECUTION_LEASE.total_seconds())
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert paid == [1]
    assert await states(runtime, paused) == ["executed"]
