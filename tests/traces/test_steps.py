"""Steps of plain code inside a run, in sequence and in parallel."""

import asyncio
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
    """A dependency of a tool with a connection."""

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
    """The recorder of the current run."""
    run_recorder = Recorder(VirtualClock(), {})
    with recording(run_recorder), run_recorder.span("run", {}):
        yield run_recorder


def payloads(spans: Sequence[Span]) -> dict[str, Any]:
    return {span.name: span.payload for span in spans}


def test_a_block(recorder: Recorder) -> None:
    """A block in a step is a span below the current one, with the attributes set in the block."""
    with step("outer") as outer, step("inner") as inner:
        inner.set({"rows": 3})
        outer.payload["result"] = "kept"
    first, second = recorder.drain()
    assert (first.name, first.kind, first.attributes, first.parent_id) == ("inner", "step", {"rows": 3}, outer.span_id)
    assert (second.name, second.payload) == ("outer", {"result": "kept"})


async def test_an_asynchronous_block(recorder: Recorder) -> None:
    """A block in `async with step` is a span as well."""
    async with step("read"):
        await asyncio.sleep(0)
    assert [span.name for span in recorder.drain()] == ["read"]


async def test_decorated_functions(recorder: Recorder) -> None:
    """Each call of a decorated function is a span with its arguments, including defaults, and its result."""
    assert add(1) == 3
    assert await find(name="Ann") == Customer(name="Ann")
    assert payloads(recorder.drain()) == {
        "add": {"arguments": {"one": 1, "other": 2}, "result": 3},
        "find": {"arguments": {"name": "Ann"}, "result": Customer(name="Ann")},
    }


def test_objects_are_not_recorded(recorder: Recorder) -> None:
    """Arguments that are objects are only named, and results that are objects are not recorded."""
    open_(Desk(object()), 5)
    assert payloads(recorder.drain()) == {"open": {"arguments": {"at": 5}, "opaque": ["desk"]}}


def test_recursive_values(recorder: Recorder) -> None:
    """A value that contains itself is not recorded, and does not fail the call."""
    endless: list[Any] = []
    endless.append(endless)
    step("loop")(lambda values: values)(endless)
    assert payloads(recorder.drain()) == {"loop": {"arguments": {}, "opaque": ["values"]}}


async def test_exceptions(recorder: Recorder) -> None:
    """An exception marks the step with its type and propagates."""
    with pytest.raises(LookupError):
        await break_()
    with pytest.raises(ZeroDivisionError), step("divide"):
        raise ZeroDivisionError
    assert [(span.name, span.error_type) for span in recorder.drain()] == [
        ("break", "LookupError"),
        ("divide", "ZeroDivisionError"),
    ]


async def test_outside_a_run() -> None:
    """Outside a run the code runs unchanged, and nothing is recorded."""
    async with step("read") as span:
        span.set({"rows": 3})
        span.fail("nothing")
        span.payload["result"] = "gone"
    assert add(1) == 3
    assert await handrail.parallel(find("Ann"), find("Bob")) == (Customer(name="Ann"), Customer(name="Bob"))
    open_(Desk(object()), 5)


def test_a_decorated_function_keeps_its_signature() -> None:
    """A decorated function keeps its name and signature, and an asynchronous one stays asynchronous."""
    assert (add.__name__, find.__name__) == ("add", "find")
    assert inspect.iscoroutinefunction(find)
    assert not inspect.iscoroutinefunction(add)


def test_generators_are_rejected() -> None:
    """Generator functions are rejected, since their work happens after the call."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(BadInput, match="put `with step"):
            step("numbers")(function)


async def test_parallel(recorder: Recorder) -> None:
    """Awaitables run concurrently, each in a step below the current span; and the results are in their order."""
    events: list[str] = []
    second_started = asyncio.Event()

    async def first() -> str:
        await second_started.wait()
        events.append("first ends")
        return "one"

    async def second() -> int:
        second_started.set()
        events.append("second starts")
        return 2

    with step("both") as both:
        assert await handrail.parallel(first(), second()) == ("one", 2)
    assert events == ["second starts", "first ends"]
    spans = {span.name: span for span in recorder.drain()}
    assert spans["first"].parent_id == spans["second"].parent_id == both.span_id
    assert spans["first"].payload == {"result": "one"}
    assert spans["first"].start_ns < spans["second"].start_ns < spans["second"].end_ns < spans["first"].end_ns


async def test_names(recorder: Recorder) -> None:
    """Steps have the given names or those of the functions; a decorated function has its own step."""

    async def plain() -> None: ...

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await handrail.parallel(plain(), find("Ann"), future)
    assert {span.name for span in recorder.drain()} == {"plain", "find", "Future"}
    await handrail.parallel(plain(), find("Ann"), names=("a", "b"))
    assert {span.name for span in recorder.drain()} == {"a", "b", "find"}


async def test_no_work(recorder: Recorder) -> None:
    """Without awaitables there are no results and no steps."""
    assert await handrail.parallel() == ()
    assert recorder.drain() == []


async def test_the_first_failure(recorder: Recorder) -> None:
    """The first failure cancels the others, and its exception is raised once they have cancelled_tasks."""
    cancelled_tasks: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cancelled_tasks.append("forever")

    with pytest.raises(LookupError, match="no such customer"):
        await handrail.parallel(forever(), break_(), forever())
    assert cancelled_tasks == ["forever", "forever"]
    assert sorted((span.name, span.error_type) for span in recorder.drain()) == [
        ("break", "LookupError"),
        ("forever", "CancelledError"),
        ("forever", "CancelledError"),
    ]


async def test_cancelling(recorder: Recorder) -> None:
    """Cancelling `parallel` cancels each awaitable and waits for it."""
    cancelled_tasks: list[int] = []
    started = [asyncio.Event(), asyncio.Event()]

    async def forever(number: int) -> None:
        started[number].set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_tasks.append(number)

    task = asyncio.ensure_future(handrail.parallel(forever(0), forever(1)))
    for event in started:
        await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cancelled_tasks) == [0, 1]
    assert len(recorder.drain()) == 2


async def test_as_many_names_as_awaitables() -> None:
    """Too few names are rejected before anything has started."""
    with pytest.raises(BadInput, match="1 names for 2 awaitables"):
        await handrail.parallel(find("Ann"), find("Bob"), names=("one",))


def test_nested_runs(recorder: Recorder) -> None:
    """An inner run has its own steps; after it, steps belong to the outer run again."""
    inner = Recorder(VirtualClock(), {})
    with recording(inner), step("within"):
        pass
    with step("after"):
        pass
    assert [span.name for span in inner.drain()] == ["within"]
    assert [span.name for span in recorder.drain()] == ["after"]


def test_a_run_closed_from_another_context(recorder: Recorder) -> None:
    """A recording may be closed in another context, where it changes nothing."""
    abandoned = recording(Recorder(VirtualClock(), {}))
    copy_context().run(abandoned.__enter__)
    abandoned.__exit__(None, None, None)
    with step("after"):
        pass
    assert [span.name for span in recorder.drain()] == ["after"]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as active:
        yield active


async def test_in_a_governed_run(runtime: Runtime) -> None:
    """In a run's tools, also in threads, steps are stored below the tool, with the run's tenant and user."""

    def slow(_ctx: RunContext[None]) -> int:
        return add(1)

    async def both() -> int:
        return sum(await handrail.parallel(asyncio.sleep(0, 1), asyncio.sleep(0, 2), names=("one", "two")))

    script = Script(says(calls("slow"), calls("both")), says("done"))
    outcome = await govern(Agent(script.model, tools=[slow, both]), name="a").run("hi", user="u", tenant="acme")
    load = load_trace(trace_id=outcome.facts.trace_id, tenant="acme")
    _, spans = await runtime.database.read(load)
    [root] = span_tree(spans)
    below = {node.span.name: [child.span.name for child in node.children] for node in root.children}
    assert below["execute_tool slow"] == ["add"]
    assert sorted(below["execute_tool both"]) == ["one", "two"]
    added = next(span for span in spans if span.name == "add")
    assert (added.kind, added.user, added.run_id) == ("step", "u", outcome.facts.run_id)
    payload = await runtime.database.read(load_payload(added.trace_id, added.span_id))
    assert payload == {"arguments": {"one": 1, "other": 2}, "result": 3}


async def test_after_a_run(runtime: Runtime) -> None:
    """Once a run has cancelled_tasks, steps are not recorded."""
    await govern(Agent(Script(says("done")).model), name="a").run("hi", user="u")
    with step("later") as span:
        assert int(span.span_id, 16) == 0
    assert runtime.database.commits > 0
