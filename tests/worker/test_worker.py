"""The worker resumes decided runs, retries failed jobs and charges expired holds."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydantic_ai import Agent, RunContext
from sqlalchemy import select

from handrail import Answered, AwaitingApproval, GovernedAgent, NotFound, RunRequest, Runtime, govern, tool
from handrail.ceilings.decision import HoldRequest
from handrail.ceilings.ledger import LEASE, hold
from handrail.kernel.db.jobs import claim, enqueue, jobs, list_jobs
from handrail.kernel.money import NanoUsd
from handrail.review.approvals.model import DECISION_PERIOD
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import begin, decide
from handrail.runs.resume import take_over
from handrail.runs.store.queries import load_outcomes, load_run
from handrail.runs.store.runs import renew_run_lease
from handrail.testing import VirtualClock, sandbox
from handrail.traces.store.spans import load_trace
from handrail.worker import LEASE as JOB_LEASE
from handrail.worker import MAX_ATTEMPTS, JobResult, run_due_jobs
from tests.runs.scripts import Script, calls, says

ROLES = {"lead": ("mia",)}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as active:
        yield active


class Shop:
    """An agent that proposes a refund, with a count of the refunds that were paid."""

    def __init__(self, runtime: Runtime, *turns: Any, deps_fail: int = 0) -> None:
        self.paid = 0
        self._runtime = runtime
        self._deps_fail = deps_fail
        self._proposed = False
        script = Script(says(calls("refund")), *(turns or (says("done"),)))
        pay = tool(self.refund, effect="irreversible", approver="role:lead")
        self.agent: GovernedAgent[Any, Any] = govern(
            Agent(script.model, tools=[pay]), name="shop", deps=self._make_deps
        )

    def refund(self) -> str:
        """Pays a refund."""
        self.paid += 1
        return "paid"

    def _make_deps(self, _request: RunRequest) -> None:
        if self._proposed and self._deps_fail:
            self._deps_fail -= 1
            raise ConnectionError("no database")

    def find(self, name: str) -> GovernedAgent[Any, Any]:
        if name != "shop":
            raise NotFound(f"no agent {name}")
        return self.agent

    async def propose_refund(self) -> AwaitingApproval:
        outcome = await self.agent.run("hi", user="u")
        assert isinstance(outcome, AwaitingApproval)
        self._proposed = True
        return outcome

    async def approve_refund(self) -> AwaitingApproval:
        paused = await self.propose_refund()
        now = self._runtime.clock.now()
        await self._runtime.database.write(decide(paused.approvals[0].approval_id, "approved", "mia", ROLES, None, now))
        return paused

    async def status(self, outcome: AwaitingApproval) -> str:
        now = self._runtime.clock.now()
        return (await self._runtime.database.read(load_run(outcome.facts.run_id, now))).status


async def states(runtime: Runtime) -> dict[str, str]:
    query = select(jobs.c.key, jobs.c.state)
    return await runtime.database.read(lambda conn: {row.key: row.state for row in conn.execute(query)})


async def test_a_decided_run_is_resumed(runtime: Runtime) -> None:
    """The worker resumes an approved run, once."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    results: list[JobResult] = []
    assert await run_due_jobs(runtime, shop.find, results.append) == 1
    assert (shop.paid, await shop.status(paused), results[0].error) == (1, "answered", None)
    assert await run_due_jobs(runtime, shop.find) == 0


async def test_an_undecided_run_waits(runtime: Runtime) -> None:
    """A run that waits for a decision is not resumed."""
    shop = Shop(runtime)
    paused = await shop.propose_refund()
    assert await run_due_jobs(runtime, shop.find) == 0
    assert (shop.paid, await shop.status(paused)) == (0, "awaiting_approval")


async def test_an_overdue_approval_expires(runtime: Runtime, clock: VirtualClock) -> None:
    """An approval expires when its period ends, and the same pass escalates its run."""
    shop = Shop(runtime)
    paused = await shop.propose_refund()
    clock.advance(DECISION_PERIOD.total_seconds())
    assert await run_due_jobs(runtime, shop.find) == 2
    assert (shop.paid, await shop.status(paused)) == (0, "escalated")


async def test_a_run_that_was_resumed_by_hand(runtime: Runtime) -> None:
    """The job of a run that was resumed by hand is done."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    assert isinstance(await shop.agent.resume(paused.facts.run_id), Answered)
    assert await run_due_jobs(runtime, shop.find) == 1
    assert (await states(runtime))[f"resume:{paused.facts.run_id}:1"] == "done"
    assert shop.paid == 1


async def test_a_bug_in_the_agent(runtime: Runtime, clock: VirtualClock) -> None:
    """A programming error ends the run; the job keeps the error, and is done at its next attempt."""
    shop = Shop(runtime)

    @shop.agent.agent.output_validator
    def check(_output: str) -> str:
        raise TypeError("wrong")

    paused = await shop.approve_refund()
    results: list[JobResult] = []
    await run_due_jobs(runtime, shop.find, results.append)
    assert "TypeError: wrong" in (results[0].error or "")
    assert await shop.status(paused) == "failed"
    clock.advance(60)
    await run_due_jobs(runtime, shop.find, results.append)
    assert (results[1].error, shop.paid) == (None, 1)


def find_none(name: str) -> GovernedAgent[Any, Any]:
    raise NotFound(f"no agent {name}")


async def escalation(runtime: Runtime, outcome: AwaitingApproval) -> tuple[str, str]:
    """The reason and the detail of the outcome that a run ended with."""
    outcomes = await runtime.database.read(load_outcomes(outcome.facts.run_id))
    assert outcomes[-1].type == "escalated"
    return outcomes[-1].body["reason"], outcomes[-1].body["detail"]


async def approval_states(runtime: Runtime, outcome: AwaitingApproval) -> list[str]:
    stored = await runtime.database.read(load_approvals(outcome.facts.run_id, runtime.clock.now()))
    return [approval.state for approval in stored]


async def test_deps_that_cannot_be_made(runtime: Runtime, clock: VirtualClock) -> None:
    """A run that cannot go on is retried with growing delays, and handed to a person after its last attempt."""
    shop = Shop(runtime, deps_fail=MAX_ATTEMPTS)
    paused = await shop.approve_refund()
    key = f"resume:{paused.facts.run_id}:1"
    for attempt in range(MAX_ATTEMPTS):
        assert await approval_states(runtime, paused) == ["approved"]
        assert await run_due_jobs(runtime, shop.find) == 1
        assert await run_due_jobs(runtime, shop.find) == 0
        clock.advance(5 * 2**attempt)
    assert await run_due_jobs(runtime, shop.find) == 0
    assert (await states(runtime))[key] == "dead"
    query = select(jobs.c.error).where(jobs.c.key == key)
    assert "no database" in await runtime.database.read(lambda conn: str(conn.execute(query).scalar_one()))
    reason, detail = await escalation(runtime, paused)
    assert reason == "resume_failed"
    assert "refund" in detail
    assert "no database" in detail
    assert (await approval_states(runtime, paused), shop.paid) == (["withdrawn"], 0)


async def test_deps_that_cannot_be_made_at_first(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose deps can be made at a later attempt goes on then, and its trace has one wait."""
    shop = Shop(runtime, deps_fail=2)
    paused = await shop.approve_refund()
    for attempt in range(3):
        assert await run_due_jobs(runtime, shop.find) == 1
        clock.advance(5 * 2**attempt)
    assert (await shop.status(paused), shop.paid) == ("answered", 1)
    assert await approval_states(runtime, paused) == ["executed"]
    _, spans = await runtime.database.read(load_trace(paused.facts.trace_id, None))
    assert len([span for span in spans if span.kind == "wait"]) == 1


async def test_an_agent_that_another_worker_knows(runtime: Runtime, clock: VirtualClock) -> None:
    """An agent that this worker does not know costs no attempts, however often it asks; one that knows it goes on."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    for _ in range(2 * MAX_ATTEMPTS):
        assert await run_due_jobs(runtime, find_none) == 1
        clock.advance(60)
    [job] = await runtime.database.read(list_jobs(clock.now(), state="waiting", limit=1, before=None))
    assert (job.attempts, job.error) == (0, "AgentUnavailable: agent shop: NotFound: no agent shop")
    assert await run_due_jobs(runtime, shop.find) == 1
    assert (await shop.status(paused), shop.paid) == ("answered", 1)


async def test_an_agent_that_no_worker_knows(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose agent no worker knows for an hour is handed to a person."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    begin = clock.now()
    while await shop.status(paused) == "awaiting_approval":
        await run_due_jobs(runtime, find_none)
        clock.advance(60)
    assert timedelta(minutes=59) < clock.now() - begin < timedelta(minutes=65)
    assert await escalation(runtime, paused) == (
        "resume_failed",
        "AgentUnavailable: agent shop: NotFound: no agent shop",
    )
    assert await approval_states(runtime, paused) == ["withdrawn"]


async def test_a_run_that_another_process_works_on(runtime: Runtime, clock: VirtualClock) -> None:
    """While another process works on the run its job costs no attempts, and is there when that process dies."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    [resumed] = await runtime.database.write(take_over(paused.facts.run_id, clock.now()))
    for _ in range(2 * MAX_ATTEMPTS):
        assert await run_due_jobs(runtime, shop.find) == 1
        clock.advance(60)
        await runtime.database.write(renew_run_lease(resumed.claim, clock.now() + timedelta(minutes=1)))
    clock.advance(60)
    assert await run_due_jobs(runtime, shop.find) == 1
    assert (await shop.status(paused), shop.paid) == ("answered", 1)


async def test_a_failing_job_does_not_block_others(runtime: Runtime, clock: VirtualClock) -> None:
    """A job whose run does not exist keeps its error, and the next job runs."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    lost = enqueue("resume_run", "a", {"run_id": "run_lost"}, clock.now() - timedelta(seconds=1))
    await runtime.database.write(lost)
    results: list[JobResult] = []
    assert await run_due_jobs(runtime, shop.find, results.append) == 2
    assert [result.job.key for result in results if result.error] == ["a"]
    assert await shop.status(paused) == "answered"


async def test_unknown_jobs_are_not_claimed(runtime: Runtime, clock: VirtualClock) -> None:
    """A job of an unknown kind is not claimed."""
    await runtime.database.write(enqueue("another", "b", {}, clock.now()))
    assert await run_due_jobs(runtime, Shop(runtime).find) == 0


async def test_logging(runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    """A job that fails is a warning with its run, and its last attempt an error; the error's text stays in the job."""
    shop = Shop(runtime, deps_fail=MAX_ATTEMPTS)
    waiting = await shop.approve_refund()
    for attempt in range(MAX_ATTEMPTS):
        await run_due_jobs(runtime, shop.find)
        clock.advance(5 * 2**attempt)
    records = _worker_records(caplog)
    assert [record.levelname for record in records] == ["WARNING"] * (MAX_ATTEMPTS - 1) + ["ERROR"] * 2
    assert records[0].getMessage() == "job failed and will be retried"
    assert records[-1].getMessage() == "job died after its last attempt"
    expected = {
        "run_id": waiting.facts.run_id,
        "tenant": "default",
        "kind": "resume_run",
        "attempts": MAX_ATTEMPTS,
        "error_type": "ResumeFailed",
    }
    assert vars(records[-1]).items() >= expected.items()
    assert "no database" not in str([vars(record) for record in records])


def _no_expiry(_approval_id: str, _now: datetime) -> NoReturn:
    raise OSError("no expiry")


def _worker_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "handrail.worker"]


async def test_an_expired_approval_is_logged(
    runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The record of an expired approval names its run and tenant; so does that of an expiry that fails."""
    caplog.set_level(logging.INFO, "handrail.worker")
    shop = Shop(runtime)
    paused = await shop.propose_refund()
    approval_id = paused.approvals[0].approval_id
    clock.advance(DECISION_PERIOD.total_seconds())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handrail.worker.handlers.expire", _no_expiry)
        await run_due_jobs(runtime, shop.find)
    clock.advance(5)
    await run_due_jobs(runtime, shop.find)
    failed, expired = _worker_records(caplog)
    assert [failed.getMessage(), expired.getMessage()] == ["job failed and will be retried", "approval expired"]
    expected = {"run_id": paused.facts.run_id, "tenant": "default", "approval_id": approval_id}
    assert all(vars(record).items() >= expected.items() for record in (failed, expired))


async def test_a_worker_that_died_is_logged(
    runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose lease ran out is claimed again with a warning that names its last worker."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    await runtime.database.write(claim(["resume_run"], "gone", clock.now(), JOB_LEASE))
    clock.advance(JOB_LEASE.total_seconds())
    assert await run_due_jobs(runtime, shop.find) == 1
    [record] = _worker_records(caplog)
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        "job claimed again: its worker died or outlived its lease",
    )
    expected = {"run_id": paused.facts.run_id, "tenant": "default", "lost_worker": "gone", "attempts": 2}
    assert vars(record).items() >= expected.items()
    assert await shop.status(paused) == "answered"


async def test_a_job_that_kills_its_workers_is_given_up(
    runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose workers died in every attempt is dead, and is not run again."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    for _ in range(MAX_ATTEMPTS):
        await runtime.database.write(claim(["resume_run"], "gone", clock.now(), JOB_LEASE))
        clock.advance(JOB_LEASE.total_seconds())
    results: list[JobResult] = []
    assert await run_due_jobs(runtime, shop.find, results.append) == 1
    assert results[0].error == "WorkerLost: the worker died or outlived its lease in the last of 10 attempts"
    assert shop.paid == 0
    assert (await escalation(runtime, paused))[0] == "resume_failed"
    assert (await states(runtime))[f"resume:{paused.facts.run_id}:1"] == "dead"
    clock.advance(JOB_LEASE.total_seconds())
    assert await run_due_jobs(runtime, shop.find) == 0
    assert [record.getMessage() for record in _worker_records(caplog)] == [
        "job claimed again: its worker died or outlived its lease",
        "run could not be resumed and was escalated",
        "job died after its last attempt",
    ]


async def test_an_action_that_kills_its_workers(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose workers died while they executed its action ends as uncertain, not as one that was never tried."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    for _ in range(MAX_ATTEMPTS):
        await runtime.database.write(claim(["resume_run"], "gone", clock.now(), JOB_LEASE))
        clock.advance(JOB_LEASE.total_seconds())
    [approval] = paused.approvals
    await runtime.database.write(begin(approval.approval_id, approval.digest, clock.now()))
    await run_due_jobs(runtime, shop.find)
    assert (await escalation(runtime, paused))[0] == "action_uncertain"
    assert (await approval_states(runtime, paused), shop.paid) == (["unknown_after_crash"], 0)


async def test_a_job_that_another_worker_claimed_has_not_died(
    runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that fails after its lease ran out and another one claimed the job changes and reports no end."""
    shop = Shop(runtime)
    paused = await shop.approve_refund()
    for _ in range(MAX_ATTEMPTS - 1):
        await runtime.database.write(claim(["resume_run"], "gone", clock.now(), JOB_LEASE))
        clock.advance(JOB_LEASE.total_seconds())

    def find_late(_name: str) -> GovernedAgent[Any, Any]:
        clock.advance(JOB_LEASE.total_seconds())
        runtime.database.write_now(claim(["resume_run"], "other", clock.now(), JOB_LEASE))
        raise NotFound("too late")

    await run_due_jobs(runtime, find_late)
    assert (await states(runtime))[f"resume:{paused.facts.run_id}:1"] == "waiting"
    assert _worker_records(caplog)[-1].getMessage() == "job result dropped: another worker has claimed the job"


async def test_an_expired_hold_is_logged(
    runtime: Runtime, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A hold that nobody settled is charged by the worker, with a warning that names its run and tenant."""
    request = HoldRequest("run_1", "u-1", "acme", 10, 10, lambda _input, _output: NanoUsd(5))
    await runtime.database.write(hold("hold_1", request, runtime.limits, clock.now()))
    clock.advance(LEASE.total_seconds())
    for _ in range(2):
        await run_due_jobs(runtime, lambda _name: pytest.fail("no agent is needed"))
    [record] = _worker_records(caplog)
    assert (record.levelname, record.getMessage()) == ("WARNING", "an expired hold was charged")
    assert vars(record).items() >= {"run_id": "run_1", "tenant": "acme", "hold_id": "hold_1"}.items()


async def test_a_run_whose_deps_only_its_caller_has(runtime: Runtime, clock: VirtualClock) -> None:
    """A worker leaves a run that was given its deps to its caller, however often it comes by."""

    def pay(ctx: RunContext[list[str]]) -> str:
        ctx.deps.append("paid")
        return "paid"

    script = Script(says(calls("pay")), says("done"))
    agent: GovernedAgent[Any, Any] = govern(
        Agent(script.model, deps_type=list, tools=[tool(pay, effect="irreversible")]), name="shop"
    )
    paused = await agent.run("hi", user="u", deps=[])
    assert isinstance(paused, AwaitingApproval)
    [approval] = paused.approvals
    await runtime.database.write(decide(approval.approval_id, "approved", "u", {}, None, clock.now()))
    for _ in range(3):
        await run_due_jobs(runtime, lambda _name: agent)
        clock.advance(3_600)
    desk: list[str] = []
    assert isinstance(await agent.resume(paused.facts.run_id, deps=desk), Answered)
    assert desk == ["paid"]
