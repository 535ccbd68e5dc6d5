"""The diff of two eval runs as it is read from the store: references, prompts, outputs and trajectories."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, BadInput, GovernedAgent, NotFound, Runtime, govern, tool
from handrail.evals import EvalSpec, exact, world
from handrail.evals.compare.alignment import Step
from handrail.evals.compare.comparison import Compared, compare_eval_runs, look_closer
from handrail.evals.eval_set.model import freeze
from handrail.evals.gate.gate import promote
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.runner.task import CallableTask
from handrail.testing import sandbox
from tests.evals.scorer_contexts import ON

CASES = """\
name: parcels
description: Parcels.
cases:
  - {id: late, input: order 1042 is late, expect: {said: "1042 is shipped"}, source: ticket 1, date: 2026-11-22}
  - {id: hello, input: hello, expect: {said: "nothing is shipped"}, source: ticket 2, date: 2026-11-22}
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    (tmp_path / "cases.yaml").write_text(CASES)
    freeze(tmp_path / "cases.yaml", "first", ON)
    with sandbox(tmp_path) as opened:
        yield opened


def find(number: str) -> str:
    return f"{number} is shipped"


def charges(number: str) -> str:
    return f"{number} was paid"


def parcels(folder: Path, *called: str, prompt: str = "Be kind.", name: str = "parcels") -> GovernedAgent[Any, str]:
    """An agent that calls these tools one after the other, then says what the last of them said."""

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        told = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        asked = next(str(part.content) for part in messages[0].parts if isinstance(part, UserPromptPart))
        number = next((word for word in asked.split() if word.isdigit()), None)
        if number is None:
            return ModelResponse([TextPart("nothing is shipped")])
        if len(told) < len(called):
            return ModelResponse([ToolCallPart(called[len(told)], {"number": number})])
        return ModelResponse([TextPart(str(told[-1].content) if told else "no idea")])

    agent: Agent[Any, str] = Agent(
        FunctionModel(model, model_name="scripted"),
        instructions=prompt,
        tools=[tool(find, effect="reads"), tool(charges, effect="reads")],
    )
    spec = EvalSpec[Any, str](
        cases=folder / "cases.yaml",
        observe=lambda outcome: {"said": outcome.output} if isinstance(outcome, Answered) else {},
        deps=lambda _request: [],
        scorers=(exact(), world(lambda desk, _case: desk == [], name="untouched")),
    )
    return govern(agent, name=name, trials=spec)


async def compared(runtime: Runtime, *agents: GovernedAgent[Any, Any]) -> Compared:
    first, second = [(await run_evals(runtime, each)).eval_run_id for each in agents]
    return await compare_eval_runs(runtime, first, second)


async def test_where_two_runs_part(runtime: Runtime, tmp_path: Path) -> None:
    """The case that fell is shown with its outputs word by word and with the first step that only one side made."""
    found = await compared(runtime, parcels(tmp_path, "find"), parcels(tmp_path, "find", "charges", prompt="Be short."))
    assert found.prompt[-2:] == ("-Be kind.", "+Be short.")
    assert None not in found.agents
    assert found.agents[0] != found.agents[1]
    assert [each.case_id for each in found.diff.cases] == ["late", "hello"]
    worst = await look_closer(runtime, found.diff.cases[0])
    assert [(each.kind, each.text) for each in worst.output] == [
        ("same", "1042 "),
        ("removed", "is"),
        ("added", "was"),
        ("same", " "),
        ("removed", "shipped"),
        ("added", "paid"),
    ]
    assert [pair.fit for pair in worst.trajectory.pairs] == ["same", "same", "added", "added", "changed"]
    assert worst.trajectory.diverges_at == 2
    assert worst.trajectory.pairs[1].after == Step(
        kind="tool", name="find", asked={"number": "1042"}, gave="1042 is shipped"
    )
    same = await look_closer(runtime, found.diff.cases[1])
    assert (same.trajectory.diverges_at, [each.kind for each in same.output]) == (None, ["same"])


async def test_another_way_to_the_same(runtime: Runtime, tmp_path: Path) -> None:
    """The same answer by another way is no change of a case, and the steps still tell."""
    found = await compared(runtime, parcels(tmp_path, "find"), parcels(tmp_path, "charges", "find"))
    assert all(not case.changes for case in found.diff.cases)
    assert (found.prompt, found.agents[0]) == ((), found.agents[1])
    late = next(case for case in found.diff.cases if case.case_id == "late")
    assert (await look_closer(runtime, late)).trajectory.diverges_at == 0


async def test_by_name(runtime: Runtime, tmp_path: Path) -> None:
    """`newest` is the agent's newest eval run, `baseline` what its gate compares with."""
    agent = parcels(tmp_path, "find")
    with pytest.raises(NotFound, match="no eval run of parcels yet"):
        await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    first = (await run_evals(runtime, agent)).eval_run_id
    with pytest.raises(NotFound, match="`handrail eval baseline parcels` sets one"):
        await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    await promote(runtime, agent, first, by="ann")
    runtime.clock.advance(1)  # type: ignore[attr-defined]
    second = (await run_evals(runtime, agent)).eval_run_id
    runtime.clock.advance(1)  # type: ignore[attr-defined]
    other = (await run_evals(runtime, parcels(tmp_path, name="others"))).eval_run_id
    found = await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    assert (found.before.eval_run_id, found.after.eval_run_id) == (first, second)
    with pytest.raises(BadInput, match="two agents, parcels and others"):
        await compare_eval_runs(runtime, first, other)
    with pytest.raises(BadInput, match="stands on the left"):
        await compare_eval_runs(runtime, first, "baseline")


async def test_plain_callables(runtime: Runtime, tmp_path: Path) -> None:
    """Trials without a run of their own are compared by what was observed, and have no steps."""
    cases = tmp_path / "cases.yaml"
    one = CallableTask(lambda _asked: {"said": "1042 is shipped"}, name="plain", cases=cases)
    two = CallableTask(lambda _asked: {"said": "nothing is shipped"}, name="plain", cases=cases)
    first, second = (await run_evals(runtime, one)).eval_run_id, (await run_evals(runtime, two)).eval_run_id
    found = await compare_eval_runs(runtime, first, second)
    assert {case.case_id: case.drop for case in found.diff.cases} == {"late": 1.0, "hello": -1.0}
    close = await asyncio.gather(*(look_closer(runtime, case) for case in found.diff.cases))
    assert all(each.trajectory.pairs == () for each in close)
    assert found.agents == (None, None)
