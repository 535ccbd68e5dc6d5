"""A worker runs several jobs at once, each with a heartbeat and a deadline, and stops as it is told to."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent

from handrail import AwaitingApproval, GovernedAgent, Runtime, Settings, StoreUnreachable, govern, tool, use_runtime
from handrail.config.settings import WorkerSettings
from handrail.kernel.db.jobs import JobView, claim, list_jobs
from handrail.review.approvals.queries import load_approvals
from handrail.review.approvals.store import decide
from handrail.runs.store.queries import load_run
from handrail.testing import VirtualClock
from handrail.worker import LEASE, StopSignal, run_due_jobs, run_worker
from tests.runs.scripts import Script, calls, says

OpenRuntime = Callable[..., Runtime]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def open_runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[OpenRuntime]:
    opened: list[Runtime] = []

    def open_with(**worker: Any) -> Runtime:
        opened.append(Runtime(Settings(base=tmp_path, worker=WorkerSettings(**worker)), clock=clock))
        return opened[-1]

    yield open_with
    for runtime in opened:
        runtime.close()


class Desk:
    """Agents with an approved action each, that waits until it is let go."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.agents: dict[str, GovernedAgent[Any, Any]] = {}
        self.runs: dict[str, str] = {}
        self.begun: list[str] = []
        self.acting = 0
        self.most_acting = 0
        self.let_go = {name: asyncio.Event() for name in "abcdef"}

    async def approve(self, *names: str) -> None:
        """One run for each name, its action approved."""
        for name in names:
            pay = tool(self._refund(name), name="refund", effect="irreversible")
            script = Script(says(calls("refund")), says("done"), says("done"))
            self.agents[name] = govern(Agent(script.model, tools=[pay]), name=name)
            with use_runtime(self.runtime):
                outcome = await self.agents[name].run("hi", user="u")
            assert isinstance(outcome, AwaitingApproval)
            self.runs[name] = outcome.facts.run_id
            decision = decide(outcome.approvals[0].approval_id, "approved", "u", {}, None, self.runtime.clock.now())
            await self.runtime.database.write(decision)

    def _refund(self, name: str) -> Any:
        async def refund() -> str:
            """Pays."""
            self.begun.append(name)
            self.acting += 1
            self.most_acting = max(self.most_acting, self.acting)
            try:
                await self.let_go[name].wait()
            finally:
                self.acting -= 1
            return "paid"

        return refund

    def find(self, name: str) -> GovernedAgent[Any, Any]:
        return self.agents[name]

    async def statuses(self) -> dict[str, str]:
        now = self.runtime.clock.now()
        read = self.runtime.database.read
        return {name: (await read(load_run(run_id, now))).status for name, run_id in self.runs.items()}

    async def job(self, name: str) -> JobView:
        jobs = await self.runtime.database.read(list_jobs(self.runtime.clock.now(), state=None, limit=99, before=None))
        [job] = [job for job in jobs if job.key == f"resume:{self.runs[name]}:1"]
        return job

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what it waits for is in the code under test
                await asyncio.sleep(0.01)


async def _until_status(desk: Desk, **expected: str) -> None:
    async with asyncio.timeout(10):
        while not expected.items() <= (await desk.statuses()).items():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_a_hanging_action_blocks_no_other_run(open_runtime: OpenRuntime) -> None:
    """While one action hangs, a worker resumes the other runs."""
    desk = Desk(open_runtime(concurrency=2))
    await desk.approve("a", "b", "c")
    for name in "bc":
        desk.let_go[name].set()
    worker = asyncio.create_task(run_worker(desk.runtime, desk.find))
    await _until_status(desk, b="answered", c="answered")
    assert (await desk.statuses())["a"] == "running"
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def test_no_more_at_once_than_the_settings_allow(open_runtime: OpenRuntime) -> None:
    """A worker runs as many jobs at once as `concurrency` allows, and all of them in the end."""
    desk = Desk(open_runtime(concurrency=2))
    await desk.approve(*"abcde")
    working = asyncio.create_task(run_due_jobs(desk.runtime, desk.find))
    await desk.until(lambda: desk.acting == 2)
    for event in desk.let_go.values():
        event.set()
    assert await working == 5
    assert desk.most_acting == 2
    assert set((await desk.statuses()).values()) == {"answered"}


async def test_a_deadline(open_runtime: OpenRuntime, clock: VirtualClock) -> None:
    """A job that takes longer than `job_seconds` is stopped, and its run is handed to a person at the next attempt."""
    desk = Desk(open_runtime(job_seconds=10))
    await desk.approve("a")
    working = asyncio.create_task(run_due_jobs(desk.runtime, desk.find))
    await desk.until(lambda: desk.acting == 1)
    clock.advance(9.9)
    await asyncio.sleep(0.05)
    assert desk.acting == 1
    clock.advance(0.2)
    assert await working == 1
    job = await desk.job("a")
    assert (job.state, job.attempts, job.error) == ("waiting", 1, "DeadlinePassed: it took longer than 10 seconds")
    assert (await desk.statuses())["a"] == "interrupted"
    clock.advance(10)
    await run_due_jobs(desk.runtime, desk.find)
    assert (await desk.statuses())["a"] == "escalated"
    assert desk.begun == ["a"]


async def test_a_heartbeat(open_runtime: OpenRuntime, clock: VirtualClock) -> None:
    """A job that takes longer than its lease stays with its worker."""
    desk = Desk(open_runtime())
    await desk.approve("a")
    working = asyncio.create_task(run_due_jobs(desk.runtime, desk.find))
    await desk.until(lambda: desk.begun == ["a"])
    for _ in range(9):
        clock.advance(LEASE.total_seconds() / 3)
        await asyncio.sleep(0.05)
        assert (await desk.job("a")).state == "running"
        assert await desk.runtime.database.write(claim(["resume_run"], "other", clock.now(), LEASE)) == [None]
    desk.let_go["a"].set()
    assert await working == 1
    assert (await desk.job("a")).state == "done"


@pytest.mark.parametrize("work", [run_due_jobs, run_worker])
async def test_a_cancelled_worker(open_runtime: OpenRuntime, work: Any) -> None:
    """A worker that is cancelled gives its jobs back at once, and leaves their runs resumable."""
    desk = Desk(open_runtime())
    await desk.approve("a", "b")
    worker = asyncio.create_task(work(desk.runtime, desk.find))
    await desk.until(lambda: desk.acting == 2)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    assert await desk.statuses() == {"a": "interrupted", "b": "interrupted"}
    for name in "ab":
        job = await desk.job(name)
        assert (job.state, job.attempts, job.worker, job.due_at) == ("waiting", 0, None, desk.runtime.clock.now())
    await run_due_jobs(desk.runtime, desk.find)
    assert await desk.statuses() == {"a": "escalated", "b": "escalated"}
    assert sorted(desk.begun) == ["a", "b"]


@pytest.mark.parametrize("turns", range(0, 40, 4))
async def test_a_worker_cancelled_at_any_time(open_runtime: OpenRuntime, turns: int) -> None:
    """Cancelled after any number of event loop turns, a worker leaves no job claimed and acts at most once."""
    desk = Desk(open_runtime())
    await desk.approve("a")
    desk.let_go["a"].set()
    worker = asyncio.create_task(run_due_jobs(desk.runtime, desk.find))
    for _ in range(turns):
        await asyncio.sleep(0)
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert (await desk.job("a")).worker is None
    await run_due_jobs(desk.runtime, desk.find)
    assert (await desk.statuses())["a"] in ("answered", "escalated")
    now = desk.runtime.clock.now()
    [approval] = await desk.runtime.database.read(load_approvals(desk.runs["a"], now))
    assert approval.state in ("executed", "unknown_after_crash")
    assert len(desk.begun) <= 1


async def test_a_worker_that_stops(open_runtime: OpenRuntime) -> None:
    """A worker that is asked to stop claims nothing more and waits for what is running."""
    desk = Desk(open_runtime(concurrency=1, grace_seconds=30))
    await desk.approve("a", "b")
    stop = StopSignal()
    worker = asyncio.create_task(run_worker(desk.runtime, desk.find, stop=stop))
    await desk.until(lambda: desk.acting == 1)
    stop.request()
    await asyncio.sleep(0.1)
    assert not worker.done()
    desk.let_go["a"].set()
    await asyncio.wait_for(worker, 10)
    assert await desk.statuses() == {"a": "answered", "b": "awaiting_approval"}


@pytest.mark.parametrize(("grace", "requests"), [(0, 1), (0.2, 1), (60, 2)])
async def test_a_worker_that_stops_before_its_jobs_end(open_runtime: OpenRuntime, grace: float, requests: int) -> None:
    """After the grace period, or at a second request, what still runs is left to others."""
    desk = Desk(open_runtime(grace_seconds=grace))
    await desk.approve("a")
    stop = StopSignal()
    worker = asyncio.create_task(run_worker(desk.runtime, desk.find, stop=stop))
    await desk.until(lambda: desk.acting == 1)
    for _ in range(requests):
        stop.request()
    await asyncio.wait_for(worker, 10)
    assert (await desk.statuses())["a"] == "interrupted"
    assert (await desk.job("a")).state == "waiting"


async def test_a_worker_that_was_stopped_before_it_began(open_runtime: OpenRuntime) -> None:
    """A request from before the worker began counts."""
    desk = Desk(open_runtime())
    await desk.approve("a")
    stop = StopSignal()
    stop.request()
    await asyncio.wait_for(run_worker(desk.runtime, desk.find, stop=stop), 10)
    assert await run_due_jobs(desk.runtime, desk.find, stop=stop) == 0
    assert desk.begun == []


async def test_a_store_that_fails_for_a_while(
    open_runtime: OpenRuntime, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose store fails waits, and goes on once the store is back."""
    desk = Desk(open_runtime())
    await desk.approve("a")
    desk.let_go["a"].set()
    failures = 3
    write = desk.runtime.database.write

    async def failing(*operations: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnreachable("no server")
        return await write(*operations)

    monkeypatch.setattr(desk.runtime.database, "write", failing)
    worker = asyncio.create_task(run_worker(desk.runtime, desk.find))
    for _ in range(3):
        await desk.until(lambda: clock.sleeping == 1)
        clock.advance(timedelta(seconds=5).total_seconds())
        await asyncio.sleep(0.05)
    await _until_status(desk, a="answered")
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
