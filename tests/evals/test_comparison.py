"""The comparison of two stored eval runs: their names, prompts, outputs and trajectories."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, BadInput, NotFound, Runtime, govern, tool
from handrail.evals import EvalSpec, end_state, exact
from handrail.evals.compare.alignment import TrajectoryStep
from handrail.evals.compare.comparison import EvalRunComparison, compare_eval_runs, load_case_detail
from handrail.evals.eval_set.lock import freeze
from handrail.evals.gate.baseline import baseline_from_eval_run
from handrail.evals.runner.eval_run import run_evals
from handrail.testing import sandbox
from tests.evals.scorer_contexts import ON

CASES = """\
name: parcels
description: Parcels.
cases:
  - {id: late, input: order 1042 is late, expect: {reply: "1042 is shipped"}, source: ticket 1, date: 2026-11-22}
  - {id: hello, input: hello, expect: {reply: "nothing is shipped"}, source: ticket 2, date: 2026-11-22}
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    (tmp_path / "cases.yaml").write_text(CASES)
    freeze(tmp_path / "cases.yaml", "first", ON)
    with sandbox(tmp_path) as active:
        yield active


def find(number: str) -> str:
    return f"{number} is shipped"


def charges(number: str) -> str:
    return f"{number} was paid"


def parcels(folder: Path, *tool_names: str, prompt: str = "Be kind.", name: str = "parcels") -> EvalSpec[Any, str]:
    """The spec of an agent that calls these tools in order, then answers with the last result."""

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        message = next(str(part.content) for part in messages[0].parts if isinstance(part, UserPromptPart))
        number = next((word for word in message.split() if word.isdigit()), None)
        if number is None:
            return ModelResponse([TextPart("nothing is shipped")])
        if len(results) < len(tool_names):
            return ModelResponse([ToolCallPart(tool_names[len(results)], {"number": number})])
        return ModelResponse([TextPart(str(results[-1].content) if results else "no idea")])

    agent: Agent[Any, str] = Agent(
        FunctionModel(model, model_name="scripted"),
        instructions=prompt,
        tools=[tool(find, effect="reads"), tool(charges, effect="reads")],
    )
    return EvalSpec(
        agent=govern(agent, name=name),
        cases=folder / "cases.yaml",
        observe=lambda outcome: {"reply": outcome.output} if isinstance(outcome, Answered) else {},
        deps=lambda _request: [],
        scorers=(exact(), end_state(lambda desk, _case: desk == [], name="untouched")),
    )


async def compare(runtime: Runtime, *specs: EvalSpec[Any, Any]) -> EvalRunComparison:
    first, second = [(await run_evals(runtime, spec)).eval_run_id for spec in specs]
    return await compare_eval_runs(runtime, first, second)


async def test_where_two_runs_diverge(runtime: Runtime, tmp_path: Path) -> None:
    """The worst case has a word diff of its outputs and the first step at which the trials diverge."""
    comparison = await compare(
        runtime, parcels(tmp_path, "find"), parcels(tmp_path, "find", "charges", prompt="Be short.")
    )
    assert comparison.prompt[-2:] == ("-Be kind.", "+Be short.")
    assert None not in comparison.agents
    assert comparison.agents[0] != comparison.agents[1]
    assert [case.case_id for case in comparison.diff.cases] == ["late", "hello"]
    worst = await load_case_detail(runtime, comparison.diff.cases[0])
    assert [(piece.kind, piece.text) for piece in worst.output] == [
        ("same", "1042 "),
        ("removed", "is"),
        ("added", "was"),
        ("same", " "),
        ("removed", "shipped"),
        ("added", "paid"),
    ]
    assert [pair.kind for pair in worst.trajectory.pairs] == ["same", "same", "added", "added", "changed"]
    assert worst.trajectory.diverges_at == 2
    assert worst.trajectory.pairs[1].after == TrajectoryStep(
        kind="tool", name="find", input={"number": "1042"}, output="1042 is shipped"
    )
    same = await load_case_detail(runtime, comparison.diff.cases[1])
    assert (same.trajectory.diverges_at, [piece.kind for piece in same.output]) == (None, ["same"])


async def test_the_same_answer_by_other_steps(runtime: Runtime, tmp_path: Path) -> None:
    """The same answer by other steps does not change the case, but its trajectories diverge."""
    comparison = await compare(runtime, parcels(tmp_path, "find"), parcels(tmp_path, "charges", "find"))
    assert all(not case.changes for case in comparison.diff.cases)
    assert (comparison.prompt, comparison.agents[0]) == ((), comparison.agents[1])
    late = next(case for case in comparison.diff.cases if case.case_id == "late")
    assert (await load_case_detail(runtime, late)).trajectory.diverges_at == 0


async def test_by_name(runtime: Runtime, tmp_path: Path) -> None:
    """`newest` is the agent's newest eval run, `baseline` that of its baseline."""
    agent = parcels(tmp_path, "find")
    with pytest.raises(NotFound, match="no eval run of parcels yet"):
        await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    first = (await run_evals(runtime, agent)).eval_run_id
    with pytest.raises(NotFound, match="`handrail eval baseline parcels` creates one"):
        await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    await baseline_from_eval_run(runtime, agent, first, by="ann")
    runtime.clock.advance(1)  # type: ignore[attr-defined]
    second = (await run_evals(runtime, agent)).eval_run_id
    runtime.clock.advance(1)  # type: ignore[attr-defined]
    other = (await run_evals(runtime, parcels(tmp_path, name="others"))).eval_run_id
    comparison = await compare_eval_runs(runtime, "baseline", "newest", "parcels")
    assert (comparison.before.eval_run_id, comparison.after.eval_run_id) == (first, second)
    with pytest.raises(BadInput, match="two agents, parcels and others"):
        await compare_eval_runs(runtime, first, other)
    with pytest.raises(BadInput, match="has to come first"):
        await compare_eval_runs(runtime, first, "baseline")


async def test_plain_callables(runtime: Runtime, tmp_path: Path) -> None:
    """Trials without a run are compared by their observed fields, and have no steps."""
    cases = tmp_path / "cases.yaml"
    one = EvalSpec(agent=lambda _input: {"reply": "1042 is shipped"}, name="plain", cases=cases)
    two = EvalSpec(agent=lambda _input: {"reply": "nothing is shipped"}, name="plain", cases=cases)
    first, second = (await run_evals(runtime, one)).eval_run_id, (await run_evals(runtime, two)).eval_run_id
    comparison = await compare_eval_runs(runtime, first, second)
    assert {case.case_id: case.drop for case in comparison.diff.cases} == {"late": 1.0, "hello": -1.0}
    details = await asyncio.gather(*(load_case_detail(runtime, case) for case in comparison.diff.cases))
    assert all(detail.trajectory.pairs == () for detail in details)
    assert comparison.agents == (None, None)
