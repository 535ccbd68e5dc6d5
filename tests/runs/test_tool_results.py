"""What tools return is never a reason for a run to end."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, ToolReturn
from pydantic_ai.messages import ModelRequest, ToolReturnPart

from handrail import (
    Answered,
    AwaitingApproval,
    Refused,
    Runtime,
    govern,
    tool,
)
from tests.runs.bank import governed, paused_run, states
from tests.runs.scripts import Count, Script, calls, counts, says
from tests.runs.test_approvals import approvals, decide_all, irreversible


class Broken:
    """Its text cannot be made, and it has a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def _circle() -> list[Any]:
    circle: list[Any] = [1]
    circle.append(circle)
    return circle


def _deep() -> Any:
    deep: Any = "x"
    for _ in range(3_000):
        deep = [deep]
    return deep


RESULTS: dict[str, Callable[[], Any]] = {
    "circle": _circle,
    "circle in a dict": lambda: {"paid": _circle()},
    "lock": threading.Lock,
    "broken repr": Broken,
    "broken repr within": lambda: {"paid": [Broken()]},
    "generator": lambda: (n for n in range(3)),
    "async generator": lambda: _numbers(),
    "bytes": lambda: b"\xff\x00",
    "NaN": lambda: {"paid": float("nan")},
    "surrogate": lambda: "half \ud83d",
    "deep": _deep,
    "keys": lambda: {(1, 2): "a", None: "b", Broken: "c"},
    "exception": lambda: ValueError("as a value"),
    "nothing": lambda: None,
    "lock in metadata": lambda: ToolReturn("paid", metadata={"lock": threading.Lock(), "circle": _circle()}),
    "broken metadata": lambda: ToolReturn("paid", metadata=Broken()),
    "circle in a return": lambda: ToolReturn(_circle(), content="see above", metadata={"n": 1}),
    "surrogate in content": lambda: ToolReturn("paid", content="half \ud83d"),
}


async def _numbers() -> Any:
    yield 1


@pytest.mark.parametrize("effect", ["irreversible", "writes"])
async def test_results_that_cannot_be_written(runtime: Runtime, effect: Any) -> None:
    """Whatever tools return, the run goes on, over a further round too, and each action is recorded as executed."""
    called: list[str] = []

    def pay(name: str) -> Any:
        called.append(name)
        return RESULTS[name]()

    def confirm() -> str:
        return "confirmed"

    declared = tool(pay, effect="writes") if effect == "writes" else irreversible(pay)
    script = Script(says(*(calls("pay", name=name) for name in RESULTS)), says(calls("confirm")), counts(1))
    agent = govern(
        Agent(script.model, output_type=Count, deps_type=Any, tools=[declared, irreversible(confirm)]),
        name="a",
        deps=lambda _request: Broken(),
    )
    outcome = await agent.run("hi", user="u")
    run_id = outcome.facts.run_id
    while isinstance(outcome, AwaitingApproval):
        await decide_all(runtime, outcome)
        outcome = await agent.resume(run_id)
    assert (type(outcome), sorted(called)) == (Answered, sorted(RESULTS))
    assert set(await states(runtime, run_id)) == {"executed"}
    [answers] = [
        {part.tool_call_id: part.content for part in message.parts if isinstance(part, ToolReturnPart)}
        for message in script.requests[1]
        if isinstance(message, ModelRequest) and message.parts[0].part_kind == "tool-return"
    ]
    assert answers["pay-generator"] == [0, 1, 2]
    assert answers["pay-circle in a dict"] == {"paid": [1, "[1, [...]]"]}
    assert answers["pay-broken repr within"] == {"paid": ["<Broken>"]}
    assert answers["pay-surrogate"] == "half ?"


async def test_a_huge_result_is_stored_in_part(runtime: Runtime) -> None:
    """A result that is too large for the next request ends the run, but its action was executed, and that is stored."""

    def pay(order: str) -> Any:
        return order * 300_000

    agent = governed(Script(says(calls("pay", order="1"))), irreversible(pay))
    paused = await paused_run(runtime, agent)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Refused)
    assert outcome.scope == "run"
    [stored] = await approvals(runtime, paused.facts.run_id)
    assert stored.state == "executed"
    assert stored.result.endswith("1 [cut: it had 300,002 bytes of JSON]")
    assert len(stored.result) < 70_000
