"""Processes forked from one that has run an agent run it too, beside each other and beside their parent."""

import asyncio
import gc
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import handrail.runs.runtime
from handrail import Answered, GovernedAgent, Runtime, govern, use_runtime
from handrail.kernel.ids import new_id
from handrail.runs.runtime import current_runtime
from handrail.runs.store.queries import list_runs
from handrail.testing import VirtualClock

from .children import Child, fork_tests, in_child

pytestmark = fork_tests


def _echo(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse(parts=[TextPart(str(messages[-1].parts[-1].content))])  # type: ignore[union-attr]


@pytest.fixture
def agent() -> GovernedAgent[None, str]:
    return govern(Agent(FunctionModel(_echo)), name="echo")


def _answers(agent: GovernedAgent[None, str], name: str, count: int = 3) -> list[str]:
    outcomes = [agent.run_sync(f"{name} {number}", user="u") for number in range(count)]
    return [outcome.output for outcome in outcomes if isinstance(outcome, Answered)]


def _run_ids(runtime: Runtime) -> list[str]:
    newest = list_runs(runtime.clock.now(), tenant=None, agent=None, limit=100, before=None)
    return [run.run_id for run in runtime.database.read_now(newest)]


def _work(agent: GovernedAgent[None, str], runtime: Runtime, results: "multiprocessing.Queue[list[str]]") -> None:
    with use_runtime(runtime):
        results.put(_answers(agent, "child"))


def test_four_children_and_their_parent_run_at_once(runtime: Runtime, agent: GovernedAgent[None, str]) -> None:
    """After the parent's first run, four children and the parent get their own answers, and every run is stored."""
    assert _answers(agent, "parent", 1) == ["parent 0"]
    children = [Child(partial(_answers, agent, f"child {number}", 2)) for number in range(4)]
    assert _answers(agent, "parent", 2) == ["parent 0", "parent 1"]
    for number, child in enumerate(children):
        assert child.result() == [f"child {number} {run}" for run in range(2)]
    assert len(set(_run_ids(runtime))) == 1 + 4 * 2 + 2


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_multiprocessing_forks(runtime: Runtime, agent: GovernedAgent[None, str]) -> None:
    """A process of multiprocessing's fork context runs agents, and its parent goes on."""
    _answers(agent, "parent", 1)
    forking = multiprocessing.get_context("fork")
    results = forking.Queue()
    process = forking.Process(target=_work, args=(agent, runtime, results))
    process.start()
    assert results.get(timeout=20) == ["child 0", "child 1", "child 2"]
    process.join(20)
    assert process.exitcode == 0
    assert _answers(agent, "parent", 1) == ["parent 0"]


def test_the_default_runtime_works_in_a_child(
    tmp_path: Path, agent: GovernedAgent[None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime that was opened on first use in the parent is used by the child."""
    monkeypatch.setenv("HANDRAIL_STORE", str(tmp_path / "default.db"))
    monkeypatch.setattr(handrail.runs.runtime, "_default", None)
    _answers(agent, "parent", 1)
    assert in_child(lambda: _answers(agent, "child")) == ["child 0", "child 1", "child 2"]
    assert _answers(agent, "parent", 1) == ["parent 0"]
    current_runtime().close()


def test_a_fork_while_another_thread_opens_the_default_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child does not wait for the lock of a thread that it does not have."""
    monkeypatch.setattr(handrail.runs.runtime, "_default", None)
    opening, resume = threading.Event(), threading.Event()

    def slowly() -> None:
        with handrail.runs.runtime._default_lock:
            opening.set()
            resume.wait()

    thread = threading.Thread(target=slowly)
    thread.start()
    opening.wait()
    child = Child(lambda: current_runtime().database.name)
    resume.set()
    thread.join()
    assert "handrail.db" in child.result()


@pytest.mark.slow
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_of_a_thread_runs(runtime: Runtime, agent: GovernedAgent[None, str]) -> None:
    """A fork from a thread that is not the main one works like any other, beside threads that run agents."""
    _answers(agent, "parent", 1)

    def fork() -> object:
        with use_runtime(runtime):
            return in_child(lambda: _answers(agent, "child"))

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fork) for _ in range(2)]
        assert [future.result() for future in futures] == [["child 0", "child 1", "child 2"]] * 2
    assert len(_run_ids(runtime)) == 1 + 2 * 3


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_that_ends_the_parents_loop_does_not_stop_the_parent(
    runtime: Runtime, agent: GovernedAgent[None, str]
) -> None:
    """The loop of `run_sync` that a child deletes at its end still wakes up in the parent, on whichever thread."""
    with ThreadPoolExecutor(1) as pool:

        def answers(name: str) -> list[str]:
            with use_runtime(runtime):
                return _answers(agent, name, 1)

        def forget_inherited() -> bool:
            loops = [loop for loop in gc.get_objects() if type(loop) is asyncio.SelectorEventLoop]
            for loop in loops:
                loop.close()
            return bool(loops)

        expected = ["parent 0"]
        assert (answers("parent"), pool.submit(answers, "parent").result(20)) == (expected, expected)
        assert in_child(forget_inherited)
        assert (answers("parent"), pool.submit(answers, "parent").result(20)) == (expected, expected)


@pytest.mark.slow
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_child_forked_by_a_child_runs(runtime: Runtime, agent: GovernedAgent[None, str]) -> None:
    """Each generation starts anew, whether or not the one before it used the runtime."""
    _answers(agent, "parent", 1)
    assert in_child(lambda: in_child(lambda: _answers(agent, "unused", 1))) == ["unused 0"]
    assert in_child(lambda: (_answers(agent, "child", 1), in_child(lambda: _answers(agent, "used", 1)))) == (
        ["child 0"],
        ["used 0"],
    )
    assert len(_run_ids(runtime)) == 4


def test_ids_of_a_parent_and_its_children_differ(clock: VirtualClock) -> None:
    """While the clock stands still, parent and children make different ids, although each counts up."""
    new_id("run", clock.now())
    made = [in_child(lambda: [new_id("run", clock.now()) for _ in range(3)]) for _ in range(3)]
    ids = [*made[0], *made[1], *made[2], *(new_id("run", clock.now()) for _ in range(3))]
    assert len(set(ids)) == len(ids)


def test_a_child_closes_only_its_own(runtime: Runtime, agent: GovernedAgent[None, str]) -> None:
    """A child that closes the runtime, used there or not, leaves the parent's as it was."""
    _answers(agent, "parent", 1)

    def close_used() -> list[str]:
        answers = _answers(agent, "child", 1)
        runtime.close()
        return answers

    assert in_child(close_used) == ["child 0"]
    in_child(runtime.close)
    assert _answers(agent, "parent", 1) == ["parent 0"]
