"""The stored record of a run, during the run and afterwards."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Failed, FellBack, NotFound, RunRequest, Runtime, govern
from handrail.runs.store.queries import RunView, list_runs, load_input, load_outcomes, load_run
from handrail.testing import VirtualClock
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_payload, load_trace
from tests.runs.scripts import Script, calls, says


async def list_views(runtime: Runtime, **overrides: Any) -> list[RunView]:
    filters: dict[str, Any] = {"tenant": None, "agent": None, "limit": 100, "before": None, **overrides}
    return await runtime.database.read(list_runs(runtime.clock.now(), **filters))


async def wait_until(runtime: Runtime, condition: Callable[[], bool]) -> None:
    """Lets the event loop's other tasks run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await runtime.database.read(lambda _conn: None)


async def test_a_runs_trace(runtime: Runtime) -> None:
    """A run's spans are one tree: agent, requests and tools in order, with separately stored payloads."""

    def find_order(number: int) -> int:
        return number + 1

    script = Script(says(calls("find_order", number=1)), says("two"))
    outcome = await govern(Agent(script.model, tools=[find_order]), name="a").run("hi", user="u", tenant="acme")
    summary, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, "acme"))
    [root] = span_tree(spans)
    assert root.span.name == "invoke_agent a"
    assert [node.span.name for node in root.children] == ["chat script", "execute_tool find_order", "chat script"]
    assert {span.run_id for span in spans} == {outcome.facts.run_id}
    assert (summary.spans, summary.errors, summary.agent, summary.user) == (4, 0, "a", "u")
    tool_span = root.children[1].span
    payload = await runtime.database.read(load_payload(tool_span.trace_id, tool_span.span_id))
    assert payload == {"arguments": {"number": 1}, "result": 2}


async def test_input_and_outcomes(runtime: Runtime) -> None:
    """A run's input and outcomes can be loaded."""
    outcome = await govern(Agent(Script(says("two")).model), name="a").run("one", user="u")
    stored = await runtime.database.read(load_input(outcome.facts.run_id))
    [final] = await runtime.database.read(load_outcomes(outcome.facts.run_id))
    assert stored == "one"
    assert (final.type, final.path, final.at) == ("answered", "happy", runtime.clock.now())
    assert (final.body["output"], final.body["message"]) == ("two", "two")


async def test_commits(runtime: Runtime) -> None:
    """A run of two requests, alone in its process, takes three commits: one before each request, and the end."""

    def find_order() -> int:
        return 1

    agent = govern(Agent(Script(says(calls("find_order")), says("two")).model, tools=[find_order]), name="a")
    before = runtime.database.commits
    await agent.run("hi", user="u")
    assert runtime.database.commits - before == 3


async def test_ids_are_ordered(runtime: Runtime, clock: VirtualClock) -> None:
    """Run ids sort in the order of their starts, also within one millisecond; lists have the newest first."""
    agent = govern(Agent(TestModel()), name="a")
    ids = []
    for step in (0, 0, 0, 0.001, 60):
        clock.advance(step)
        ids.append((await agent.run("hi", user="u")).facts.run_id)
    assert ids == sorted(ids)
    assert [run.run_id for run in await list_views(runtime)] == ids[::-1]


async def test_paging(runtime: Runtime) -> None:
    """Successive pages hold every run once, and can be limited to one agent or one tenant."""
    agents = [govern(Agent(TestModel()), name=name) for name in ("a", "b")]
    for number in range(6):
        await agents[number % 2].run("hi", user="u", tenant=f"t-{number % 3}")
    all_runs = await list_views(runtime)
    assert len(all_runs) == 6
    paged: list[RunView] = []
    while page := await list_views(runtime, limit=4, before=paged[-1].run_id if paged else None):
        paged += page
    assert paged == all_runs
    assert [run.agent for run in await list_views(runtime, agent="b")] == ["b"] * 3
    assert [run.tenant for run in await list_views(runtime, tenant="t-2")] == ["t-2"] * 2


async def test_prefixes(runtime: Runtime, clock: VirtualClock) -> None:
    """A run is found by a unique prefix of its id; a prefix of several runs, of none, or of another tenant's is not
    found."""
    agent = govern(Agent(TestModel()), name="a")
    first = (await agent.run("hi", user="u", tenant="acme")).facts.run_id
    clock.advance(1)
    second = (await agent.run("hi", user="u", tenant="other")).facts.run_id

    def load(prefix: str, tenant: str | None = None) -> RunView:
        return runtime.database.read_now(load_run(prefix, runtime.clock.now(), tenant))

    assert [load(run_id).run_id for run_id in (first, second)] == [first, second]
    assert load(first[:-1]).run_id == first
    assert load("run_", "acme").run_id == first
    with pytest.raises(NotFound, match="several runs begin"):
        load("run_")
    for unknown in ("run_zzz", "run%", "%"):
        with pytest.raises(NotFound, match="no run"):
            load(unknown)
    with pytest.raises(NotFound, match="no run"):
        load(first, "other")


async def test_a_lease_is_renewed(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose tool waits for minutes counts as running all the time."""
    waiting, resume = asyncio.Event(), asyncio.Event()

    async def find_order() -> str:
        waiting.set()
        await resume.wait()
        return "found"

    agent = govern(Agent(Script(says(calls("find_order")), says("ok")).model, tools=[find_order]), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    await waiting.wait()

    for _ in range(6):
        await wait_until(runtime, lambda: clock.sleeping == 1)
        clock.advance(20)
    await wait_until(runtime, lambda: clock.sleeping == 1)
    [run] = await list_views(runtime)
    assert (run.status, run.path) == ("running", None)
    resume.set()
    outcome = await running
    assert isinstance(outcome, Answered)
    assert outcome.facts.duration >= timedelta(seconds=120)


async def test_an_expired_lease(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose lease has expired counts as interrupted, and its path as failed."""
    waiting = asyncio.Event()

    async def find_order() -> None:
        waiting.set()
        await asyncio.Event().wait()

    agent = govern(Agent(Script(says(calls("find_order"))).model, tools=[find_order]), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    await waiting.wait()
    # What another process reads if this one no longer renews the lease.
    later = [clock.now() + timedelta(seconds=seconds) for seconds in (29.999, 30)]
    views = [await runtime.database.read(load_run(run_id="run_", now=at)) for at in later]
    assert [(run.status, run.path, run.fault) for run in views] == [
        ("running", None, None),
        ("interrupted", "failed", "interrupted"),
    ]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def make_deps(request: RunRequest) -> str:
    return f"desk of {request.tenant}"


async def make_deps_later(request: RunRequest) -> str:
    return make_deps(request)


@pytest.mark.parametrize("factory", [make_deps, make_deps_later])
async def test_a_deps_factory(factory: Any) -> None:
    """A factory, synchronous or not, makes each run's deps from its request; deps that are passed need no factory."""
    received: list[str] = []

    async def note(request: RunRequest) -> str:
        received.append(request.deps)
        return "ok"

    script = Script(*[OSError("gone")] * 3)
    agent: Any = govern(Agent(script.model, deps_type=str), name="a", deps=factory, fallback=note)
    await agent.run("hi", user="u", tenant="acme")
    await agent.run("hi", user="u", deps="given")
    await agent.run("hi", user="u", make_deps=lambda _request: "of this run")
    assert received == ["desk of acme", "given", "of this run"]


async def test_a_deps_factory_that_fails() -> None:
    """A factory that fails ends the run as a fault before any model is called; the fallback may still answer."""

    def broken(_request: RunRequest) -> str:
        raise OSError("the desk is closed")

    async def handler(request: RunRequest) -> str:
        assert request.deps is None
        return "later"

    script = Script()
    failed = await govern(Agent(script.model, deps_type=str), name="a", deps=broken).run("hi", user="u")
    fell_back = await govern(Agent(script.model, deps_type=str), name="a", deps=broken, fallback=handler).run(
        "hi", user="u"
    )
    assert isinstance(failed, Failed)
    assert (failed.fault.code, failed.fault.detail) == ("tool_failed", "deps: OSError: the desk is closed")
    assert isinstance(fell_back, FellBack)
    assert script.requests == []


async def test_a_deps_factory_with_a_bug(runtime: Runtime) -> None:
    """A programming error in the factory propagates, and the run is recorded as failed."""

    def buggy(_request: RunRequest) -> str:
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        await govern(Agent(TestModel(), deps_type=str), name="a", deps=buggy).run("hi", user="u")
    assert [(run.status, run.fault) for run in await list_views(runtime)] == [("failed", "bug")]


async def test_concurrent_runs(runtime: Runtime) -> None:
    """Fifty concurrent runs each have their own trace and answer."""
    agent = govern(Agent(TestModel(call_tools=[])), name="a")
    outcomes = await asyncio.gather(*(agent.run(f"{n}", user="u", tenant=f"t-{n}") for n in range(50)))
    assert len({outcome.facts.run_id for outcome in outcomes}) == len({o.facts.trace_id for o in outcomes}) == 50
    stored = [await runtime.database.read(load_input(run_id=outcome.facts.run_id)) for outcome in outcomes]
    assert stored == [str(n) for n in range(50)]
