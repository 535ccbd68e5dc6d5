"""What people have approved is executed once, as they saw it, whatever goes wrong between; or a person is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ToolCallPart
from sqlalchemy import select

from handrail import GovernedAgent, NotFound, Runtime, govern, tool
from handrail.review.approvals.store import approvals, decide
from handrail.runs.store.queries import RunView, load_outcomes, load_run
from handrail.testing import VirtualClock, sandbox
from handrail.worker import MAX_ATTEMPTS, run_due_jobs, run_worker
from tests.runs.scripts import Script, calls, says

ROLES = {"lead": ("mia",)}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as active:
        yield active


class Worker:
    """Works through the jobs of a store with whichever agent is deployed, and reads what came of a run."""

    def __init__(self, runtime: Runtime, clock: VirtualClock) -> None:
        self.runtime = runtime
        self.clock = clock

    async def approve(self, run_id: str) -> None:
        """Approves what a run waits for."""
        for approval in self.approvals(run_id):
            if approval.state == "pending":
                decision = decide(approval.approval_id, "approved", approval.user, ROLES, None, self.clock.now())
                await self.runtime.database.write(decision)

    async def work(self, *agents: GovernedAgent[Any, Any]) -> None:
        """Runs the jobs that are due; only the runs of these agents can be resumed."""
        by_name = {agent.name: agent for agent in agents}

        def find(name: str) -> GovernedAgent[Any, Any]:
            if name not in by_name:
                raise NotFound(f"no agent {name}")
            return by_name[name]

        await run_due_jobs(self.runtime, find)

    def approvals(self, run_id: str) -> list[Any]:
        query = select(approvals).where(approvals.c.run_id == run_id).order_by(approvals.c.approval_id)
        return list(self.runtime.database.read_now(lambda conn: conn.execute(query).all()))

    def states(self, run_id: str) -> list[str]:
        return [approval.state for approval in self.approvals(run_id)]

    def run(self, run_id: str) -> RunView:
        return self.runtime.database.read_now(load_run(run_id, self.clock.now()))

    def last_outcome(self, run_id: str) -> Any:
        return self.runtime.database.read_now(load_outcomes(run_id))[-1].body


@pytest.fixture
def worker(runtime: Runtime, clock: VirtualClock) -> Worker:
    return Worker(runtime, clock)


class Till:
    """Counts what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def refund(self, order: str, amount: int = 5) -> str:
        """Refunds an order."""
        self.paid.append(amount)
        return f"refunded {order}"


@pytest.fixture
def till() -> Till:
    return Till()


def desk(*turns: Any, tools: Any = (), **options: Any) -> GovernedAgent[Any, Any]:
    return govern(Agent(Script(*turns).model, tools=tools), name="desk", **options)


def refunds(till: Till) -> list[Any]:
    return [tool(till.refund, effect="irreversible")]


REFUND = says(calls("refund", order="1"))
DONE = says("done")


async def proposed(worker: Worker, agent: GovernedAgent[Any, Any]) -> str:
    """Runs an agent until it proposes something, approves that, and returns the run's id."""
    outcome = await agent.run("hi", user="u-1")
    assert outcome.type == "awaiting_approval"
    await worker.approve(outcome.facts.run_id)
    return outcome.facts.run_id


async def test_a_tool_that_asks_by_itself_is_in_the_table(worker: Worker) -> None:
    """A call that a tool has approved by raising ApprovalRequired is executed and recorded like any other."""
    closed: list[str] = []

    def close(ctx: RunContext[None], account: str) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        closed.append(account)
        return "closed"

    agent = desk(says(calls("close", account="7")), DONE, tools=[close])
    run_id = await proposed(worker, agent)
    await worker.work(agent)
    assert (closed, worker.states(run_id), worker.run(run_id).status) == (["7"], ["executed"], "answered")


async def test_deps_that_fail_once(worker: Worker, clock: VirtualClock, till: Till) -> None:
    """If the deps cannot be made, the approved action waits, and the job is tried again."""
    failures = [ConnectionError("the database is away")]

    def deps(_request: Any) -> None:
        if worker_is_on and failures:
            raise failures.pop()

    worker_is_on = False
    agent = desk(REFUND, DONE, tools=refunds(till), deps=deps)
    run_id = await proposed(worker, agent)
    worker_is_on = True
    await worker.work(agent)
    assert (till.paid, worker.states(run_id)) == ([], ["approved"])
    clock.advance(3_600)
    await worker.work(agent)
    assert (till.paid, worker.states(run_id), worker.run(run_id).status) == ([5], ["executed"], "answered")


async def test_a_tool_that_is_gone_and_comes_back(worker: Worker, clock: VirtualClock, till: Till) -> None:
    """If the deployed agent lacks the tool, the approved action waits for a deployment that has it."""
    run_id = await proposed(worker, desk(REFUND, tools=refunds(till)))
    await worker.work(desk(DONE))
    clock.advance(3_600)
    assert worker.states(run_id) == ["approved"]
    await worker.work(desk(DONE, tools=refunds(till)))
    assert (till.paid, worker.states(run_id), worker.run(run_id).status) == ([5], ["executed"], "answered")


async def test_an_agent_that_this_worker_does_not_know(worker: Worker, clock: VirtualClock, till: Till) -> None:
    """However often workers without the agent claim the job, one with the agent resumes the run."""
    agent = desk(REFUND, DONE, tools=refunds(till))
    run_id = await proposed(worker, agent)
    for _ in range(2 * MAX_ATTEMPTS):
        await worker.work()
        clock.advance(120)
    await worker.work(agent)
    assert (till.paid, worker.run(run_id).status) == ([5], "answered")


async def test_a_run_that_can_never_go_on_is_shown_to_a_person(worker: Worker, clock: VirtualClock, till: Till) -> None:
    """Once its attempts are used up, the run is escalated with the reason, and its action ends unexecuted."""
    run_id = await proposed(worker, desk(REFUND, tools=refunds(till)))
    for _ in range(2 * MAX_ATTEMPTS):
        await worker.work(desk(*[DONE] * 50))
        clock.advance(3_600)
    assert (worker.run(run_id).status, worker.states(run_id), till.paid) == ("escalated", ["withdrawn"], [])
    outcome = worker.last_outcome(run_id)
    assert outcome["reason"] == "resume_failed"
    assert "refund" in outcome["detail"]


async def test_a_default_that_a_deployment_changes(worker: Worker, till: Till) -> None:
    """People see the defaults that apply; if others apply later, they are asked again before anything happens."""

    def refund(order: str, amount: int = 500) -> str:
        """Refunds an order."""
        return till.refund(order, amount)

    run_id = await proposed(worker, desk(REFUND, tools=refunds(till)))
    assert worker.approvals(run_id)[0].arguments == {"order": "1", "amount": 5}
    deployed = desk(DONE, tools=[tool(refund, effect="irreversible")])
    await worker.work(deployed)
    assert (till.paid, worker.run(run_id).status) == ([], "awaiting_approval")
    assert [(a.state, a.arguments["amount"]) for a in worker.approvals(run_id)] == [("withdrawn", 5), ("pending", 500)]
    await worker.approve(run_id)
    await worker.work(deployed)
    assert (till.paid, worker.run(run_id).status) == ([500], "answered")


@pytest.mark.parametrize("later", [False, True], ids=["in one response", "in a later turn"])
async def test_a_call_id_that_is_used_twice(worker: Worker, till: Till, later: bool) -> None:
    """Two calls with the same id from the provider are two actions, each with an approval of its own."""
    first, second = (ToolCallPart("refund", {"order": "1", "amount": n}, tool_call_id="call_0") for n in (1, 2))
    turns = [says(first), says(second)] if later else [says(first, second)]
    agent = desk(*turns, DONE, tools=refunds(till))
    run_id = await proposed(worker, agent)
    await worker.work(agent)
    if later:
        assert (till.paid, worker.states(run_id)) == ([1], ["executed", "pending"])
        await worker.approve(run_id)
        await worker.work(agent)
    assert (sorted(till.paid), worker.states(run_id)) == ([1, 2], ["executed", "executed"])
    assert worker.run(run_id).status == "answered"


async def test_a_third_identical_call_is_looping(worker: Worker, till: Till) -> None:
    """A third identical approved call is not executed: the run's fault is `looping`, and its approval is withdrawn."""
    three = says(*(ToolCallPart("refund", {"order": "1"}, tool_call_id=f"c{n}") for n in range(3)))
    agent = desk(three, DONE, tools=refunds(till))
    run_id = await proposed(worker, agent)
    await worker.work(agent)
    assert (till.paid, worker.run(run_id).fault) == ([5, 5], "looping")
    assert sorted(worker.states(run_id)) == ["executed", "executed", "withdrawn"]


class Unreadable:
    """Nothing can be made of it."""

    def __init__(self) -> None:
        self.me = self
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "make",
    [Unreadable, _cycle, lambda: {"lock": threading.Lock()}, lambda: "x" * 5_000_000],
    ids=["broken", "cycle", "lock", "huge"],
)
async def test_a_result_that_cannot_be_stored(worker: Worker, make: Callable[[], Any]) -> None:
    """An action is recorded as executed whatever its tool returns, with a result of bounded size, and the run ends."""
    acted: list[str] = []

    def act(order: str) -> Any:
        """Acts on an order."""
        acted.append(order)
        return make()

    agent = desk(says(calls("act", order="1")), DONE, tools=[tool(act, effect="irreversible")])
    run_id = await proposed(worker, agent)
    await worker.work(agent)
    assert (acted, worker.states(run_id)) == (["1"], ["executed"])
    assert len(json.dumps(worker.approvals(run_id)[0].result)) < 100_000
    assert worker.run(run_id).status not in ("running", "interrupted", "awaiting_approval")


async def test_a_tool_that_hangs_blocks_no_other_run(worker: Worker, till: Till) -> None:
    """While one approved tool hangs, the same worker resumes another run."""
    hangs = asyncio.Event()

    async def hang() -> str:
        """Never returns."""
        hangs.set()
        await asyncio.Event().wait()
        return "never"

    stuck = govern(Agent(Script(says(calls("hang"))).model, tools=[tool(hang, effect="irreversible")]), name="stuck")
    agent = desk(REFUND, DONE, tools=refunds(till))
    await proposed(worker, stuck)
    run_id = await proposed(worker, agent)
    agents = {"stuck": stuck, "desk": agent}
    working = asyncio.create_task(run_worker(worker.runtime, agents.__getitem__, lambda _result: None))
    await asyncio.wait_for(hangs.wait(), 10)
    for _ in range(200):
        if worker.run(run_id).status == "answered":
            break
        await asyncio.sleep(0.01)
    status = worker.run(run_id).status
    working.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(working, 10)
    assert (till.paid, status) == ([5], "answered")


@pytest.mark.parametrize(("happened", "paid", "state"), [(True, 1, "executed"), (False, 2, "executed")])
async def test_a_tool_that_knows_whether_it_acted(
    worker: Worker, clock: VirtualClock, happened: bool, paid: int, state: str
) -> None:
    """After a kill, the tool's `reconcile` is asked instead of a person: what happened is not repeated."""
    sent: list[str] = []
    asked: list[str] = []

    async def send(order: str) -> str:
        """Sends an order."""
        sent.append(order)
        if len(sent) == 1:
            raise asyncio.CancelledError
        return "sent"

    def reconcile(key: str, _arguments: Any) -> bool:
        asked.append(key)
        return happened

    agent = desk(says(calls("send", order="1")), DONE, tools=[tool(send, effect="irreversible", reconcile=reconcile)])
    run_id = await proposed(worker, agent)
    with suppress(asyncio.CancelledError):
        await worker.work(agent)
    clock.advance(86_400)
    await worker.work(agent)
    [approval] = worker.approvals(run_id)
    assert (len(sent), approval.state, asked) == (paid, state, [approval.approval_id])
    assert worker.run(run_id).status == "answered"


async def test_an_action_that_is_not_valid_any_more(worker: Worker, till: Till) -> None:
    """If the precondition does not hold when it is executed, the action ends withdrawn and the run goes on."""
    refund = tool(till.refund, effect="irreversible", still_valid=lambda _arguments: "the order was cancelled")
    agent = desk(REFUND, DONE, tools=[refund])
    run_id = await proposed(worker, agent)
    await worker.work(agent)
    assert (till.paid, worker.states(run_id), worker.run(run_id).status) == ([], ["withdrawn"], "answered")
