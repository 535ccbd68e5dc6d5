"""A resumed run that is stopped, or that cannot go on here, keeps what people approved and can be resumed again."""

import asyncio
from typing import Any

import pytest
from pydantic_ai import Agent, FunctionToolset
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import select

from handrail import Answered, AwaitingApproval, Escalated, Failed, ResumeFailed, RunRequest, Runtime, govern, tool
from handrail.ceilings.ledger_queries import find_discrepancies
from handrail.ceilings.tables import holds
from handrail.kernel.errors import StoreError, StoreFull
from handrail.models.errors import ModelUnavailable
from handrail.review.approvals.model import DECISION_PERIOD
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide, expire
from handrail.runs.store.queries import RunView, list_runs, load_run
from handrail.testing import VirtualClock
from tests.runs.scripts import Script, calls, says

ROLES = {"lead": ("mia",)}


class Desk:
    """An agent that refunds, and what was paid."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.paid: list[str] = []
        self.model: Any = None
        self.run_id = ""

    def agent(self, *tools: Any, model: Any = None, **options: Any) -> Any:
        script = model or Script(says("done")).model
        return govern(Agent(script, tools=tools), name="desk", **options)

    def tool(self, function: Any, **options: Any) -> Any:
        return tool(function, effect="irreversible", approver="role:lead", **options)

    async def propose(self, agent: Any, **options: Any) -> AwaitingApproval:
        outcome = await agent.run("hi", user="u", **options)
        assert isinstance(outcome, AwaitingApproval)
        self.run_id = outcome.facts.run_id
        return outcome

    async def approve(self, agent: Any, **options: Any) -> AwaitingApproval:
        paused = await self.propose(agent, **options)
        for approval in paused.approvals:
            await self.decide(approval.approval_id)
        return paused

    async def decide(self, approval_id: str) -> None:
        now = self.runtime.clock.now()
        await self.runtime.database.write(decide(approval_id, "approved", "mia", ROLES, None, now))

    async def run(self) -> RunView:
        return await self.runtime.database.read(load_run(self.run_id, self.runtime.clock.now()))

    async def states(self) -> dict[str, str]:
        stored = await self.runtime.database.read(load_approvals(self.run_id, self.runtime.clock.now()))
        return {approval.tool: approval.state for approval in stored}


@pytest.fixture
def desk(runtime: Runtime) -> Desk:
    return Desk(runtime)


def proposing(*tools: str) -> Any:
    return Script(says(*(calls(name) for name in tools))).model


class Waiting:
    """Something to wait in, that says when it was entered."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def forever(self) -> None:
        self.entered.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("stopped_by", ["cancellation", "timeout"])
async def test_stopped_while_it_acts(desk: Desk, stopped_by: str) -> None:
    """Stopped while it executes an action, a run is resumable at once, and the action is then uncertain."""
    waiting = Waiting()

    async def refund() -> str:
        desk.paid.append("refund")
        await waiting.forever()
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    agent = desk.agent(desk.tool(refund))
    if stopped_by == "timeout":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.resume(desk.run_id), 0.3)
    else:
        running = asyncio.create_task(agent.resume(desk.run_id))
        await waiting.entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (await desk.run()).status == "interrupted"
    assert await desk.states() == {"refund": "executing"}
    outcome = await agent.resume(desk.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, desk.paid) == ("action_uncertain", ["refund"])
    assert await desk.states() == {"refund": "unknown_after_crash"}


async def test_stopped_while_an_idempotent_action_is_executed(desk: Desk) -> None:
    """An idempotent action that was stopped is executed again by the next resume, and the run goes on."""
    waiting = Waiting()

    async def refund() -> str:
        if not waiting.entered.is_set():
            await waiting.forever()
        desk.paid.append("refund")
        return "paid"

    agent = desk.agent(desk.tool(refund, idempotent=True), model=proposing("refund"))
    await desk.approve(agent)
    agent = desk.agent(desk.tool(refund, idempotent=True))
    running = asyncio.create_task(agent.resume(desk.run_id))
    await waiting.entered.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert isinstance(await agent.resume(desk.run_id), Answered)
    assert desk.paid == ["refund"]


async def test_stopped_during_a_request_after_the_action(desk: Desk, runtime: Runtime) -> None:
    """What a stopped request may have cost is settled; the next resume does not act again and gets the result."""
    waiting = Waiting()
    seen: list[list[ModelMessage]] = []

    async def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        seen.append(messages)
        if not waiting.entered.is_set():
            await waiting.forever()
        return says("done")

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    agent = desk.agent(desk.tool(refund), model=FunctionModel(respond))
    running = asyncio.create_task(agent.resume(desk.run_id))
    await waiting.entered.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await desk.run()).status == "interrupted"
    states = await runtime.database.read(lambda conn: conn.execute(select(holds.c.state)).scalars().all())
    assert states == ["settled", "settled"]
    outcome = await agent.resume(desk.run_id)
    assert isinstance(outcome, Answered)
    assert (desk.paid, outcome.facts.requests) == (["refund"], 3)
    assert "paid" in str(seen[-1][-1])
    assert await runtime.database.read(find_discrepancies()) == []


@pytest.mark.parametrize("steps", range(0, 90, 6))
async def test_stopped_after_any_number_of_turns(desk: Desk, steps: int) -> None:
    """Stopped after any number of event loop turns, a run is resumable at once, and acts at most once in all."""

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    agent = desk.agent(desk.tool(refund), model=Script(says("done"), says("done")).model)
    running = asyncio.create_task(agent.resume(desk.run_id))
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    run, states = await desk.run(), await desk.states()
    if run.status != "answered":
        assert run.status in ("awaiting_approval", "interrupted")
        outcome = await agent.resume(desk.run_id)
        expected = "action_uncertain" if states["refund"] == "executing" else None
        assert getattr(outcome, "reason", None) == expected
    assert len(desk.paid) <= 1
    assert (await desk.states())["refund"] in ("executed", "unknown_after_crash")


@pytest.mark.parametrize("fails_at", [0, 1])
async def test_the_store_fails_after_the_action(
    desk: Desk, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """A run whose store fails once an action has taken place is resumable, and does not act again."""

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return says("done")

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    agent = desk.agent(desk.tool(refund), model=FunctionModel(respond))
    write = runtime.database.write

    failures = list(range(fails_at + 1))

    async def write_or_fail(*operations: Any) -> Any:
        # The action itself is recorded by a single operation.
        if desk.paid and len(operations) > 1 and failures and failures.pop() == 0:
            raise StoreFull("disk full")
        return await write(*operations)

    monkeypatch.setattr(runtime.database, "write", write_or_fail)
    with pytest.raises(StoreError, match="disk full"):
        await agent.resume(desk.run_id)
    assert (await desk.run()).status == "interrupted"
    assert isinstance(await agent.resume(desk.run_id), Answered)
    assert desk.paid == ["refund"]


async def test_a_first_run_that_is_cancelled(desk: Desk) -> None:
    """A run that its caller cancels before it ever waited for people has failed."""
    waiting = Waiting()

    async def look() -> str:
        await waiting.forever()
        return ""

    agent = desk.agent(tool(look, effect="reads"), model=proposing("look"))
    running = asyncio.create_task(agent.run("hi", user="u"))
    await waiting.entered.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    now = desk.runtime.clock.now()
    [run] = await desk.runtime.database.read(list_runs(now, tenant=None, agent=None, limit=5, before=None))
    assert (run.status, run.fault) == ("failed", "cancelled")


@pytest.mark.parametrize("error", [ConnectionError("no database"), TypeError("a bug"), TimeoutError()])
async def test_the_deps_factory_fails_once(desk: Desk, error: Exception) -> None:
    """A run whose deps cannot be made keeps the approved action; the next resume executes it."""
    failing = [error]

    def make_deps(_request: RunRequest) -> str:
        if desk.run_id and failing:
            raise failing.pop()
        return "deps"

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund"), deps=make_deps))
    agent = desk.agent(desk.tool(refund), deps=make_deps, fallback=_never)
    with pytest.raises(ResumeFailed, match=type(error).__name__):
        await agent.resume(desk.run_id)
    assert ((await desk.run()).status, await desk.states()) == ("interrupted", {"refund": "approved"})
    assert isinstance(await agent.resume(desk.run_id), Answered)
    assert (desk.paid, await desk.states()) == (["refund"], {"refund": "executed"})


async def _never(_request: RunRequest) -> str:
    pytest.fail("the fallback must not take the place of an approved action")


async def test_an_approved_tool_is_gone(desk: Desk) -> None:
    """A run whose approved tool is gone is not told to the model; it is resumed once the tool is back."""

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    without = desk.agent(model=Script().model, fallback=_never)
    with pytest.raises(ResumeFailed, match="refund"):
        await without.resume(desk.run_id)
    assert await desk.states() == {"refund": "approved"}
    assert isinstance(await desk.agent(desk.tool(refund)).resume(desk.run_id), Answered)
    assert desk.paid == ["refund"]


async def test_a_toolset_that_does_not_start(desk: Desk) -> None:
    """A run whose tools cannot be reached, such as those of an MCP server that is down, keeps the action."""

    class Down(FunctionToolset[Any]):
        async def __aenter__(self) -> Any:
            raise ConnectionError("refused")

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    down = govern(Agent(Script().model, toolsets=[Down()]), name="desk", fallback=_never)
    with pytest.raises(ResumeFailed, match="refused"):
        await down.resume(desk.run_id)
    assert isinstance(await desk.agent(desk.tool(refund)).resume(desk.run_id), Answered)
    assert desk.paid == ["refund"]


async def test_no_model_is_configured(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that this process has no model for keeps the action."""

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    monkeypatch.setattr(desk.runtime, "model", _no_model)
    with pytest.raises(ResumeFailed, match="no key"):
        await govern(Agent(tools=[desk.tool(refund)]), name="desk").resume(desk.run_id)
    assert isinstance(await desk.agent(desk.tool(refund)).resume(desk.run_id), Answered)
    assert desk.paid == ["refund"]


def _no_model() -> Any:
    raise ModelUnavailable("no key")


async def test_one_of_two_tools_is_gone(desk: Desk) -> None:
    """The other action is executed once, and only the missing one waits."""

    def refund() -> str:
        desk.paid.append("refund")
        return "paid"

    def cancel() -> str:
        desk.paid.append("cancel")
        return "cancelled"

    both = [desk.tool(refund), desk.tool(cancel)]
    await desk.approve(desk.agent(*both, model=proposing("refund", "cancel")))
    with pytest.raises(ResumeFailed, match="cancel"):
        await desk.agent(both[0], model=Script().model).resume(desk.run_id)
    assert await desk.states() == {"refund": "executed", "cancel": "approved"}
    assert isinstance(await desk.agent(*both).resume(desk.run_id), Answered)
    assert desk.paid == ["refund", "cancel"]


async def test_one_of_two_approvals_expires(desk: Desk, runtime: Runtime, clock: VirtualClock) -> None:
    """When one action of a round expires, the approved one is withdrawn with its run, rather than left approved."""

    def refund() -> str:
        return "paid"

    def cancel() -> str:
        return "cancelled"

    both = [desk.tool(refund), desk.tool(cancel)]
    paused = await desk.propose(desk.agent(*both, model=proposing("refund", "cancel")))
    await desk.decide(paused.approvals[0].approval_id)
    clock.advance(DECISION_PERIOD.total_seconds())
    await runtime.database.write(expire(paused.approvals[1].approval_id, clock.now()))
    outcome = await desk.agent(*both).resume(desk.run_id)
    assert isinstance(outcome, Escalated)
    assert await desk.states() == {"refund": "withdrawn", "cancel": "expired"}


async def test_a_bug_after_the_action(desk: Desk) -> None:
    """A programming error after the action ends the run; the action stays executed."""

    def refund() -> str:
        return "paid"

    await desk.approve(desk.agent(desk.tool(refund), model=proposing("refund")))
    agent = desk.agent(desk.tool(refund))

    def check(_output: str) -> str:
        raise TypeError("wrong")

    agent.agent.output_validator(check)
    with pytest.raises(TypeError):
        await agent.resume(desk.run_id)
    run = await desk.run()
    assert (run.status, run.fault, await desk.states()) == (Failed.type, "bug", {"refund": "executed"})
