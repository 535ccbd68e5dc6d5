"""A model's responses kept in a file."""

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ModelContextWindowExceededError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, BadInput, Failed, GovernedAgent, Outcome, Runtime, Settings, govern, tool
from handrail.config.settings import Price
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import freeze
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.runner.response_cache import NotRecorded, Recorded, Responses
from handrail.testing import VirtualClock, sandbox

CASES = """\
name: numbers
description: Adds one.
cases:
  - {id: one, input: "1", expect: {said: "2"}, source: this test, date: 2026-11-22}
  - {id: two, input: "2", expect: {said: "3"}, source: this test, date: 2026-11-22}
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as opened:
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.yaml"
    path.write_text(CASES)
    freeze(path, "first", dt.date(2026, 11, 22))
    return path


class Adder:
    """An agent that adds by a tool, and how often its model was asked."""

    def __init__(self, cases: Path, instructions: str = "Add.", temperature: float = 0) -> None:
        self.asked = 0
        agent = Agent(
            FunctionModel(self._respond, model_name="adder"),
            instructions=instructions,
            tools=[tool(self.add, effect="reads")],
            model_settings={"temperature": temperature},
        )
        self.agent: GovernedAgent[Any, Any] = govern(agent, name="adder", trials=EvalSpec(cases=cases, observe=_said))

    def add(self, ctx: RunContext[None]) -> int:
        """One more."""
        return int(str(ctx.prompt)) + 1

    def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        self.asked += 1
        told = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        return ModelResponse([TextPart(str(told[-1].content)) if told else ToolCallPart("add", {})])


def _said(outcome: Outcome[Any]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


async def test_a_rerun_asks_nobody(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """The same agent on the same set is answered from the file, tools included, and scores the same, at no cost."""
    first, again = Adder(cases), Adder(cases)
    before = await run_evals(runtime, first.agent, responses=Responses(tmp_path / "kept.jsonl"))
    after = await run_evals(runtime, again.agent, responses=Responses(tmp_path / "kept.jsonl"))
    assert (first.asked, again.asked) == (4, 0)
    assert before.score == after.score
    assert [trial.observed for trial in before.trials] == [trial.observed for trial in after.trials]
    assert {trial.agent_hash for trial in before.trials} == {trial.agent_hash for trial in after.trials}


async def test_two_trials_are_two_draws(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """A second trial of a case asks anew."""
    adder, kept = Adder(cases), tmp_path / "kept.jsonl"
    await run_evals(runtime, adder.agent, responses=Responses(kept))
    await run_evals(runtime, adder.agent, trials=2, responses=Responses(kept))
    assert adder.asked == 8


@pytest.mark.parametrize("changed", [{"instructions": "Add one."}, {"temperature": 1}])
async def test_a_change_asks_anew(runtime: Runtime, cases: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    """Another prompt or another setting is another request."""
    kept, other = tmp_path / "kept.jsonl", Adder(cases, **changed)
    await run_evals(runtime, Adder(cases).agent, responses=Responses(kept))
    await run_evals(runtime, other.agent, responses=Responses(kept))
    assert other.asked == 4


async def test_recorded_answers_only(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """Where only recorded answers count, a request without one is an error that names the file, and nobody is asked."""
    kept = tmp_path / "kept.jsonl"
    await run_evals(runtime, Adder(cases).agent, responses=Responses(kept))
    replay = Adder(cases)
    report = await run_evals(runtime, replay.agent, responses=Recorded(kept))
    assert report.score is not None
    assert (report.score.mean, replay.asked) == (1, 0)
    changed = Adder(cases, instructions="Subtract.")
    with pytest.raises(NotRecorded, match=r"kept.jsonl: no response of function:adder"):
        await run_evals(runtime, changed.agent, responses=Recorded(kept))
    assert changed.asked == 0


async def test_an_input_that_is_too_long(cases: Path, tmp_path: Path) -> None:
    """That an input is too long for the model is kept like an answer: the same fault, nobody is asked or paid."""
    kept, asked = tmp_path / "kept.jsonl", []
    prices = {"short": Price(input=Decimal(1), output=Decimal(1))}
    paid = Runtime(Settings(base=tmp_path, store="paid.db", prices=prices), clock=VirtualClock())

    def turn_down(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        asked.append(messages)
        raise ModelContextWindowExceededError("short", "9 tokens where 8 fit")

    agent = Agent(FunctionModel(turn_down, model_name="short"))
    short: GovernedAgent[Any, Any] = govern(agent, name="short", trials=EvalSpec(cases=cases, observe=_fault))
    first = await run_evals(paid, short, responses=Responses(kept))
    again = await run_evals(paid, short, responses=Recorded(kept))
    paid.close()
    assert len(asked) == 2
    assert [trial.observed for report in (first, again) for trial in report.trials] == [{"fault": "input_too_long"}] * 4
    assert [trial.cost for trial in again.trials] == [0, 0]


async def test_half_a_line(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """What a killed process had half written is asked for again; a broken line before it is an error that names it."""
    kept = tmp_path / "kept.jsonl"
    await run_evals(runtime, Adder(cases).agent, responses=Responses(kept))
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-1]) + lines[-1][:20])
    adder = Adder(cases)
    await run_evals(runtime, adder.agent, responses=Responses(kept))
    assert adder.asked == 1
    assert len(Responses(kept)) == 4
    kept.write_text("{}\n" + lines[0])
    with pytest.raises(BadInput, match=r"kept.jsonl:1: not a recorded response"):
        Responses(kept)


def _fault(outcome: Outcome[Any]) -> Mapping[str, Any]:
    return {"fault": outcome.fault.code} if isinstance(outcome, Failed) else {}
