"""What the store knows of a run, while it lasts and afterwards."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from handrail import Answered, Failed, FellBack, NotFound, RunRequest, Runtime, govern
from handrail.runs.store.runs import RunView, list_runs, load_input, load_outcomes, load_run
from handrail.testing import VirtualClock
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_payload, load_trace
from tests.runs.scripts import Script, calls, says


async def views(runtime: Runtime, **where: Any) -> list[RunView]:
    asked: dict[str, Any] = {"tenant": None, "agent": None, "limit": 100, "before": None, **where}
    return await runtime.database.read(lambda conn: list_runs(conn, runtime.clock.now(), **asked))


async def until(runtime: Runtime, condition: Callable[[], bool]) -> None:
    """Reads nothing, and so lets the loop's other tasks go on, until it is so."""
    async with asyncio.timeout(30):
        while not condition():
            await runtime.database.read(lambda _conn: None)


async def test_a_runs_trace(runtime: Runtime) -> None:
    """A run's spans are one tree: the agent, its requests and its tools in order, with what was said apart."""

    def look(number: int) -> int:
        return number + 1

    script = Script(says(calls("look", number=1)), says("two"))
    outcome = await govern(Agent(script.model, tools=[look]), name="a").run("hi", user="u", tenant="acme")
    summary, spans = await runtime.database.read(lambda conn: load_trace(conn, outcome.facts.trace_id, "acme"))
    [root] = span_tree(spans)
    assert root.span.name == "invoke_agent a"
    assert [node.span.name for node in root.children] == ["chat script", "execute_tool look", "chat script"]
    assert {span.run_id for span in spans} == {outcome.facts.run_id}
    assert (summary.spans, summary.errors, summary.agent, summary.user) == (4, 0, "a", "u")
    tool_span = root.children[1].span
    said = await runtime.database.read(lambda conn: load_payload(conn, tool_span.trace_id, tool_span.span_id))
    assert said == {"arguments": {"number": 1}, "result": 2}


async def test_input_and_outcomes(runtime: Runtime) -> None:
    """What a run was asked and how it ended can be read back."""
    outcome = await govern(Agent(Script(says("two")).model), name="a").run("one", user="u")
    asked = await runtime.database.read(lambda conn: load_input(conn, outcome.facts.run_id))
    [ended] = await runtime.database.read(lambda conn: load_outcomes(conn, outcome.facts.run_id))
    assert asked == "one"
    assert (ended.type, ended.path, ended.at) == ("answered", "happy", runtime.clock.now())
    assert (ended.body["output"], ended.body["message"]) == ("two", "two")


async def test_commits(runtime: Runtime) -> None:
    """A run of two requests alone in its process is three commits: each before its request, and the end."""

    def look() -> int:
        return 1

    agent = govern(Agent(Script(says(calls("look")), says("two")).model, tools=[look]), name="a")
    before = runtime.database.commits
    await agent.run("hi", user="u")
    assert runtime.database.commits - before == 3


async def test_ids_are_ordered(runtime: Runtime, clock: VirtualClock) -> None:
    """Runs sort by their ids in the order they began, also within one millisecond, and are listed newest first."""
    agent = govern(Agent(TestModel()), name="a")
    ids = []
    for step in (0, 0, 0, 0.001, 60):
        clock.advance(step)
        ids.append((await agent.run("hi", user="u")).facts.run_id)
    assert ids == sorted(ids)
    assert [run.run_id for run in await views(runtime)] == ids[::-1]


async def test_paging(runtime: Runtime) -> None:
    """Pages that follow each other hold every run once, for one agent or one tenant where asked."""
    agents = [govern(Agent(TestModel()), name=name) for name in ("a", "b")]
    for number in range(6):
        await agents[number % 2].run("hi", user="u", tenant=f"t-{number % 3}")
    everything = await views(runtime)
    assert len(everything) == 6
    paged: list[RunView] = []
    while page := await views(runtime, limit=4, before=paged[-1].run_id if paged else None):
        paged += page
    assert paged == everything
    assert [run.agent for run in await views(runtime, agent="b")] == ["b"] * 3
    assert [run.tenant for run in await views(runtime, tenant="t-2")] == ["t-2"] * 2


async def test_prefixes(runtime: Runtime, clock: VirtualClock) -> None:
    """A run is found by as much of its id as no other has; what several have, nobody has, or another tenant has is not
    found."""
    agent = govern(Agent(TestModel()), name="a")
    first = (await agent.run("hi", user="u", tenant="acme")).facts.run_id
    clock.advance(1)
    second = (await agent.run("hi", user="u", tenant="other")).facts.run_id

    def load(prefix: str, tenant: str | None = None) -> RunView:
        return runtime.database.read_now(lambda conn: load_run(conn, prefix, runtime.clock.now(), tenant))

    assert [load(run_id).run_id for run_id in (first, second)] == [first, second]
    assert load(first[:-1]).run_id == first
    assert load("run_", "acme").run_id == first
    with pytest.raises(NotFound, match="several runs begin"):
        load("run_")
    for nobodys in ("run_zzz", "run%", "%"):
        with pytest.raises(NotFound, match="no run"):
            load(nobodys)
    with pytest.raises(NotFound, match="no run"):
        load(first, "other")


async def test_a_lease_is_renewed(runtime: Runtime, clock: VirtualClock) -> None:
    """A run whose tool waits for minutes counts as running all the while."""
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def look() -> str:
        waiting.set()
        await go_on.wait()
        return "seen"

    agent = govern(Agent(Script(says(calls("look")), says("ok")).model, tools=[look]), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    await waiting.wait()

    for _ in range(6):
        await until(runtime, lambda: clock.sleeping == 1)
        clock.advance(20)
    await until(runtime, lambda: clock.sleeping == 1)
    [run] = await views(runtime)
    assert (run.status, run.path) == ("running", None)
    go_on.set()
    outcome = await running
    assert isinstance(outcome, Answered)
    assert outcome.facts.duration >= timedelta(seconds=120)


async def test_a_process_that_is_gone(runtime: Runtime, clock: VirtualClock) -> None:
    """A run that nobody renews counts as interrupted, and as failed, once its lease is over."""
    waiting = asyncio.Event()

    async def look() -> None:
        waiting.set()
        await asyncio.Event().wait()

    agent = govern(Agent(Script(says(calls("look"))).model, tools=[look]), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    await waiting.wait()
    # What another process sees later, where this one renews no more.
    later = [clock.now() + timedelta(seconds=seconds) for seconds in (29.999, 30)]
    seen = [await runtime.database.read(partial(load_run, run_id="run_", now=at)) for at in later]
    assert [(run.status, run.path, run.fault) for run in seen] == [
        ("running", None, None),
        ("interrupted", "failed", "interrupted"),
    ]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def made(request: RunRequest) -> str:
    return f"desk of {request.tenant}"


async def made_later(request: RunRequest) -> str:
    return made(request)


@pytest.mark.parametrize("factory", [made, made_later])
async def test_deps_are_made_per_run(factory: Any) -> None:
    """A factory makes each run's deps from its request, at once or awaited; deps that are given need no factory."""
    seen: list[str] = []

    async def note(request: RunRequest) -> str:
        seen.append(request.deps)
        return "ok"

    script = Script(*[OSError("gone")] * 3)
    agent: Any = govern(Agent(script.model, deps_type=str), name="a", deps=factory, fallback=note)
    await agent.run("hi", user="u", tenant="acme")
    await agent.run("hi", user="u", deps="given")
    await agent.run("hi", user="u", make_deps=lambda _request: "of this run")
    assert seen == ["desk of acme", "given", "of this run"]


async def test_deps_that_cannot_be_made() -> None:
    """A factory that fails ends the run as a fault, before any model is asked, and the fallback may still answer."""

    def broken(_request: RunRequest) -> str:
        raise OSError("the desk is closed")

    async def sorry(request: RunRequest) -> str:
        assert request.deps is None
        return "later"

    script = Script()
    failed = await govern(Agent(script.model, deps_type=str), name="a", deps=broken).run("hi", user="u")
    fell_back = await govern(Agent(script.model, deps_type=str), name="a", deps=broken, fallback=sorry).run(
        "hi", user="u"
    )
    assert isinstance(failed, Failed)
    assert (failed.fault.code, failed.fault.detail) == ("tool_failed", "deps: OSError: the desk is closed")
    assert isinstance(fell_back, FellBack)
    assert script.asked == []


async def test_a_factory_with_a_bug(runtime: Runtime) -> None:
    """A programming error in the factory propagates, recorded."""

    def wrong(_request: RunRequest) -> str:
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        await govern(Agent(TestModel(), deps_type=str), name="a", deps=wrong).run("hi", user="u")
    assert [(run.status, run.fault) for run in await views(runtime)] == [("failed", "bug")]


async def test_many_at_once(runtime: Runtime) -> None:
    """Fifty runs side by side are fifty runs, each with its own trace and answer."""
    agent = govern(Agent(TestModel(call_tools=[])), name="a")
    outcomes = await asyncio.gather(*(agent.run(f"{n}", user="u", tenant=f"t-{n}") for n in range(50)))
    assert len({outcome.facts.run_id for outcome in outcomes}) == len({o.facts.trace_id for o in outcomes}) == 50
    asked = [await runtime.database.read(partial(load_input, run_id=outcome.facts.run_id)) for outcome in outcomes]
    assert asked == [str(n) for n in range(50)]
