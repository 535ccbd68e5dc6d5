"""Plain code that gets spans of its own: one after the other, and side by side."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext

import handrail
from handrail import BadInput, Runtime, govern
from handrail.testing import VirtualClock, sandbox
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.recorder.recorder import Recorder
from handrail.traces.recorder.steps import recording, step
from handrail.traces.store.spans import load_payload, load_trace
from tests.runs.scripts import Script, calls, says


class Customer(BaseModel):
    name: str


@dataclass
class Desk:
    """Holds a connection, as a tool's dependencies do."""

    connection: object


@step("add")
def add(one: int, other: int = 2) -> int:
    return one + other


@step("find")
async def find(name: str) -> Customer:
    return Customer(name=name)


@step("open")
def open_(desk: Desk, at: int) -> object:
    return (desk, at)


@step("break")
async def break_() -> None:
    raise LookupError("no such customer")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """The recorder of a run that is under way."""
    made = Recorder(VirtualClock(), {})
    with recording(made), made.span("run", {}):
        yield made


def payloads(spans: Sequence[Span]) -> dict[str, Any]:
    return {span.name: span.payload for span in spans}


def test_a_block(recorder: Recorder) -> None:
    """A block in a step is a span below the one that is current, with what the block says of it."""
    with step("outer") as outer, step("inner") as inner:
        inner.set({"rows": 3})
        outer.payload["result"] = "kept"
    first, second = recorder.take()
    assert (first.name, first.kind, first.attributes, first.parent_id) == ("inner", "step", {"rows": 3}, outer.span_id)
    assert (second.name, second.payload) == ("outer", {"result": "kept"})


async def test_an_asynchronous_block(recorder: Recorder) -> None:
    """`async with` does the same."""
    async with step("read"):
        await asyncio.sleep(0)
    assert [span.name for span in recorder.take()] == ["read"]


async def test_decorated_functions(recorder: Recorder) -> None:
    """Each call of a decorated function is a span with what it was given, defaults too, and what it returned."""
    assert add(1) == 3
    assert await find(name="Ann") == Customer(name="Ann")
    assert payloads(recorder.take()) == {
        "add": {"arguments": {"one": 1, "other": 2}, "result": 3},
        "find": {"arguments": {"name": "Ann"}, "result": Customer(name="Ann")},
    }


def test_what_is_no_data(recorder: Recorder) -> None:
    """Arguments that are objects are named as such and not kept, nor are such results."""
    open_(Desk(object()), 5)
    assert payloads(recorder.take()) == {"open": {"arguments": {"at": 5}, "opaque": ["desk"]}}


def test_what_holds_itself(recorder: Recorder) -> None:
    """A value that holds itself is no data, and no reason to fail."""
    endless: list[Any] = []
    endless.append(endless)
    step("loop")(lambda found: found)(endless)
    assert payloads(recorder.take()) == {"loop": {"arguments": {}, "opaque": ["found"]}}


async def test_what_fails(recorder: Recorder) -> None:
    """An exception marks the step with its type and goes on."""
    with pytest.raises(LookupError):
        await break_()
    with pytest.raises(ZeroDivisionError), step("divide"):
        raise ZeroDivisionError
    assert [(span.name, span.error_type) for span in recorder.take()] == [
        ("break", "LookupError"),
        ("divide", "ZeroDivisionError"),
    ]


async def test_outside_a_run() -> None:
    """Outside a run the code runs as it is, and nothing is recorded."""
    async with step("read") as span:
        span.set({"rows": 3})
        span.fail("nothing")
        span.payload["result"] = "gone"
    assert add(1) == 3
    assert await handrail.parallel(find("Ann"), find("Bob")) == (Customer(name="Ann"), Customer(name="Bob"))
    open_(Desk(object()), 5)


def test_a_decorated_function_stays_itself() -> None:
    """A decorated function keeps its name and its signature, and an asynchronous one stays one."""
    assert (add.__name__, find.__name__) == ("add", "find")
    assert inspect.iscoroutinefunction(find)
    assert not inspect.iscoroutinefunction(add)


def test_generators_are_turned_down() -> None:
    """A generator goes on after its call, so that a step around the call would time nothing."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(BadInput, match="put `with step"):
            step("numbers")(function)


async def test_side_by_side(recorder: Recorder) -> None:
    """Awaitables run at once, each in a step of its own below the current one; results are in their order."""
    turns: list[str] = []
    second_began = asyncio.Event()

    async def first() -> str:
        await second_began.wait()
        turns.append("first ends")
        return "one"

    async def second() -> int:
        second_began.set()
        turns.append("second begins")
        return 2

    with step("both") as both:
        assert await handrail.parallel(first(), second()) == ("one", 2)
    assert turns == ["second begins", "first ends"]
    spans = {span.name: span for span in recorder.take()}
    assert spans["first"].parent_id == spans["second"].parent_id == both.span_id
    assert spans["first"].payload == {"result": "one"}
    assert spans["first"].start_ns < spans["second"].start_ns < spans["second"].end_ns < spans["first"].end_ns


async def test_names(recorder: Recorder) -> None:
    """Steps are named as asked, else after the function; a decorated one has its step already, asked for or not."""

    async def plain() -> None: ...

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await handrail.parallel(plain(), find("Ann"), future)
    assert {span.name for span in recorder.take()} == {"plain", "find", "Future"}
    await handrail.parallel(plain(), find("Ann"), names=("a", "b"))
    assert {span.name for span in recorder.take()} == {"a", "b", "find"}


async def test_no_work(recorder: Recorder) -> None:
    """Nothing side by side is no results and no steps."""
    assert await handrail.parallel() == ()
    assert recorder.take() == []


async def test_the_first_failure(recorder: Recorder) -> None:
    """The first to fail cancels the rest, and its exception comes once they have ended."""
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("forever")

    with pytest.raises(LookupError, match="no such customer"):
        await handrail.parallel(forever(), break_(), forever())
    assert ended == ["forever", "forever"]
    assert sorted((span.name, span.error_type) for span in recorder.take()) == [
        ("break", "LookupError"),
        ("forever", "CancelledError"),
        ("forever", "CancelledError"),
    ]


async def test_cancelling(recorder: Recorder) -> None:
    """Who cancels the whole cancels each part, and waits for it."""
    ended: list[int] = []
    began = [asyncio.Event(), asyncio.Event()]

    async def forever(number: int) -> None:
        began[number].set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.ensure_future(handrail.parallel(forever(0), forever(1)))
    for each in began:
        await each.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1]
    assert len(recorder.take()) == 2


async def test_as_many_names_as_awaitables() -> None:
    """Names that are too few are turned down before anything has begun."""
    with pytest.raises(BadInput, match="1 names for 2 awaitables"):
        await handrail.parallel(find("Ann"), find("Bob"), names=("one",))


def test_runs_inside_each_other(recorder: Recorder) -> None:
    """A run inside a run has the steps of its own; afterwards they are the outer one's again."""
    inner = Recorder(VirtualClock(), {})
    with recording(inner), step("within"):
        pass
    with step("after"):
        pass
    assert [span.name for span in inner.take()] == ["within"]
    assert [span.name for span in recorder.take()] == ["after"]


def test_a_run_that_is_closed_from_elsewhere(recorder: Recorder) -> None:
    """A recording may end in another context than it began in, and changes nothing there."""
    abandoned = recording(Recorder(VirtualClock(), {}))
    copy_context().run(abandoned.__enter__)
    abandoned.__exit__(None, None, None)
    with step("after"):
        pass
    assert [span.name for span in recorder.take()] == ["after"]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as opened:
        yield opened


async def test_in_a_governed_run(runtime: Runtime) -> None:
    """In a run's tools, plain ones in threads too, steps are stored below the tool, with the run's tenant and user."""

    def slow(_ctx: RunContext[None]) -> int:
        return add(1)

    async def both() -> int:
        return sum(await handrail.parallel(asyncio.sleep(0, 1), asyncio.sleep(0, 2), names=("one", "two")))

    script = Script(says(calls("slow"), calls("both")), says("done"))
    outcome = await govern(Agent(script.model, tools=[slow, both]), name="a").run("hi", user="u", tenant="acme")
    load = functools.partial(load_trace, trace_id=outcome.facts.trace_id, tenant="acme")
    _, spans = await runtime.database.read(load)
    [root] = span_tree(spans)
    below = {node.span.name: [child.span.name for child in node.children] for node in root.children}
    assert below["execute_tool slow"] == ["add"]
    assert sorted(below["execute_tool both"]) == ["one", "two"]
    added = next(span for span in spans if span.name == "add")
    assert (added.kind, added.user, added.run_id) == ("step", "u", outcome.facts.run_id)
    said = await runtime.database.read(lambda conn: load_payload(conn, added.trace_id, added.span_id))
    assert said == {"arguments": {"one": 1, "other": 2}, "result": 3}


async def test_after_a_run(runtime: Runtime) -> None:
    """Once a run has ended, steps are nobody's again."""
    await govern(Agent(Script(says("done")).model), name="a").run("hi", user="u")
    with step("later") as span:
        assert int(span.span_id, 16) == 0
    assert runtime.database.commits > 0
