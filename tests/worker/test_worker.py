"""The worker carries on what people decided, whatever happens to it on the way."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from sqlalchemy import select

from handrail import Answered, AwaitingApproval, GovernedAgent, NotFound, Runtime, govern, tool
from handrail.kernel.db.jobs import enqueue, jobs
from handrail.review.approvals.model import EXPIRES
from handrail.review.approvals.store import decide
from handrail.runs.store.runs import load_run
from handrail.testing import VirtualClock, sandbox
from handrail.worker import ATTEMPTS, Done, run_due
from tests.runs.scripts import Script, calls, says

ROLES = {"lead": ("mia",)}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as opened:
        yield opened


class Shop:
    """An agent that wants to refund, and what was paid."""

    def __init__(self, runtime: Runtime, *turns: Any) -> None:
        self.paid = 0
        self._runtime = runtime
        script = Script(says(calls("refund")), *(turns or (says("done"),)))
        pay = tool(self.refund, effect="irreversible", approver="role:lead")
        self.agent: GovernedAgent[Any, Any] = govern(Agent(script.model, tools=[pay]), name="shop")

    def refund(self) -> str:
        """Pays."""
        self.paid += 1
        return "paid"

    def find(self, name: str) -> GovernedAgent[Any, Any]:
        if name != "shop":
            raise NotFound(f"no agent {name}")
        return self.agent

    async def waits(self) -> AwaitingApproval:
        outcome = await self.agent.run("hi", user="u")
        assert isinstance(outcome, AwaitingApproval)
        return outcome

    async def approved(self) -> AwaitingApproval:
        found = await self.waits()
        now = self._runtime.clock.now()
        await self._runtime.database.write(decide(found.approvals[0].approval_id, "approved", "mia", ROLES, None, now))
        return found

    async def status(self, found: AwaitingApproval) -> str:
        now = self._runtime.clock.now()
        return (await self._runtime.database.read(lambda conn: load_run(conn, found.facts.run_id, now))).status


async def states(runtime: Runtime) -> dict[str, str]:
    query = select(jobs.c.key, jobs.c.state)
    return await runtime.database.read(lambda conn: {row.key: row.state for row in conn.execute(query)})


async def test_what_is_decided_is_carried_on(runtime: Runtime) -> None:
    """An approved run is resumed by the worker, once; there is nothing left to do then."""
    shop = Shop(runtime)
    found = await shop.approved()
    done: list[Done] = []
    assert await run_due(runtime, shop.find, done.append) == 1
    assert (shop.paid, await shop.status(found), done[0].error) == (1, "answered", None)
    assert await run_due(runtime, shop.find) == 0


async def test_what_is_not_decided_waits(runtime: Runtime) -> None:
    """A run that waits for a person is not touched."""
    shop = Shop(runtime)
    found = await shop.waits()
    assert await run_due(runtime, shop.find) == 0
    assert (shop.paid, await shop.status(found)) == (0, "awaiting_approval")


async def test_what_nobody_decides_expires(runtime: Runtime, clock: VirtualClock) -> None:
    """When its time is over an approval expires, and its run ends with a person, in one go."""
    shop = Shop(runtime)
    found = await shop.waits()
    clock.advance(EXPIRES.total_seconds())
    assert await run_due(runtime, shop.find) == 2
    assert (shop.paid, await shop.status(found)) == (0, "escalated")


async def test_somebody_else_was_faster(runtime: Runtime) -> None:
    """A run that was carried on by hand leaves the worker a job that is done."""
    shop = Shop(runtime)
    found = await shop.approved()
    assert isinstance(await shop.agent.resume(found.facts.run_id), Answered)
    assert await run_due(runtime, shop.find) == 1
    assert (await states(runtime))[f"resume:{found.facts.run_id}:1"] == "done"
    assert shop.paid == 1


async def test_a_bug_in_the_agent(runtime: Runtime, clock: VirtualClock) -> None:
    """A run that meets a programming error ends with it; the worker keeps the error, and then lets the job go."""
    shop = Shop(runtime, TypeError("wrong"))
    found = await shop.approved()
    done: list[Done] = []
    await run_due(runtime, shop.find, done.append)
    assert "TypeError: wrong" in (done[0].error or "")
    assert await shop.status(found) == "failed"
    clock.advance(60)
    await run_due(runtime, shop.find, done.append)
    assert (done[1].error, shop.paid) == (None, 1)


async def test_an_agent_that_is_not_there(runtime: Runtime, clock: VirtualClock) -> None:
    """A job that fails is tried again, ever later, and left to people with its error after the last try."""
    shop = Shop(runtime)
    found = await shop.approved()

    def nobody(name: str) -> GovernedAgent[Any, Any]:
        raise NotFound(f"no agent {name}")

    for attempt in range(ATTEMPTS):
        assert await run_due(runtime, nobody) == 1
        assert await run_due(runtime, nobody) == 0
        clock.advance(5 * 2**attempt)
    assert await run_due(runtime, nobody) == 0
    key = f"resume:{found.facts.run_id}:1"
    assert (await states(runtime))[key] == "dead"
    query = select(jobs.c.error).where(jobs.c.key == key)
    assert "no agent shop" in await runtime.database.read(lambda conn: str(conn.execute(query).scalar_one()))
    assert await shop.status(found) == "awaiting_approval"


async def test_a_failing_job_is_in_nobodys_way(runtime: Runtime, clock: VirtualClock) -> None:
    """A job whose run is not there keeps its error, and the next one runs."""
    shop = Shop(runtime)
    found = await shop.approved()
    lost = enqueue("resume_run", "a", {"run_id": "run_lost"}, clock.now() - timedelta(seconds=1))
    await runtime.database.write(lost)
    done: list[Done] = []
    assert await run_due(runtime, shop.find, done.append) == 2
    assert [each.job.key for each in done if each.error] == ["a"]
    assert await shop.status(found) == "answered"


async def test_jobs_of_others_are_left_alone(runtime: Runtime, clock: VirtualClock) -> None:
    """A kind of job that this worker does not know is not claimed."""
    await runtime.database.write(enqueue("another", "b", {}, clock.now()))
    assert await run_due(runtime, Shop(runtime).find) == 0
