"""Recording a model's responses in a file and replaying them."""

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

from handrail import Answered, BadInput, Failed, Outcome, Runtime, Settings, govern, tool
from handrail.config.settings import PriceOverride
from handrail.evals import EvalSpec
from handrail.evals.errors import NotRecorded
from handrail.evals.eval_set.lock import freeze
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.runner.response_cache import RecordedResponses, ResponseCache
from handrail.testing import VirtualClock, sandbox

CASES = """\
name: numbers
description: Adds one.
cases:
  - {id: one, input: "1", expect: {reply: "2"}, source: this test, date: 2026-11-22}
  - {id: two, input: "2", expect: {reply: "3"}, source: this test, date: 2026-11-22}
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as active:
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.yaml"
    path.write_text(CASES)
    freeze(path, "first", dt.date(2026, 11, 22))
    return path


class Adder:
    """An agent that adds one with a tool, and counts its model requests."""

    def __init__(self, cases: Path, instructions: str = "Add.", temperature: float = 0) -> None:
        self.requests = 0
        agent = Agent(
            FunctionModel(self._respond, model_name="adder"),
            instructions=instructions,
            tools=[tool(self.add, effect="reads")],
            model_settings={"temperature": temperature},
        )
        self.spec = EvalSpec(agent=govern(agent, name="adder"), cases=cases, observe=_observe)

    def add(self, ctx: RunContext[None]) -> int:
        """Adds one."""
        return int(str(ctx.prompt)) + 1

    def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        self.requests += 1
        results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        return ModelResponse([TextPart(str(results[-1].content)) if results else ToolCallPart("add", {})])


def _observe(outcome: Outcome[Any]) -> Mapping[str, Any]:
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


async def test_a_rerun_makes_no_requests(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """The same agent on the same set is answered from the file, tool calls included, with the same score."""
    first, second = Adder(cases), Adder(cases)
    before = await run_evals(runtime, first.spec, responses=ResponseCache(tmp_path / "responses.jsonl"))
    after = await run_evals(runtime, second.spec, responses=ResponseCache(tmp_path / "responses.jsonl"))
    assert (first.requests, second.requests) == (4, 0)
    assert before.score == after.score
    assert [trial.observed for trial in before.trials] == [trial.observed for trial in after.trials]
    assert {trial.agent_hash for trial in before.trials} == {trial.agent_hash for trial in after.trials}


async def test_a_second_trial_makes_new_requests(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """A second trial of a case calls the model again."""
    adder, file = Adder(cases), tmp_path / "responses.jsonl"
    await run_evals(runtime, adder.spec, responses=ResponseCache(file))
    await run_evals(runtime, adder.spec, trials=2, responses=ResponseCache(file))
    assert adder.requests == 8


@pytest.mark.parametrize("overrides", [{"instructions": "Add one."}, {"temperature": 1}])
async def test_a_change_calls_the_model_again(
    runtime: Runtime, cases: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    """Another prompt or another setting is another request."""
    file, other = tmp_path / "responses.jsonl", Adder(cases, **overrides)
    await run_evals(runtime, Adder(cases).spec, responses=ResponseCache(file))
    await run_evals(runtime, other.spec, responses=ResponseCache(file))
    assert other.requests == 4


async def test_recorded_responses_only(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """With recorded responses only, a request without one is an error that names the file, and no request is made."""
    file = tmp_path / "responses.jsonl"
    await run_evals(runtime, Adder(cases).spec, responses=ResponseCache(file))
    replay = Adder(cases)
    report = await run_evals(runtime, replay.spec, responses=RecordedResponses(file))
    assert report.score is not None
    assert (report.score.mean, replay.requests) == (1, 0)
    changed = Adder(cases, instructions="Subtract.")
    with pytest.raises(NotRecorded, match=r"responses.jsonl: no response of function:adder"):
        await run_evals(runtime, changed.spec, responses=RecordedResponses(file))
    assert changed.requests == 0


async def test_an_input_that_is_too_long(cases: Path, tmp_path: Path) -> None:
    """A fault for too long an input is recorded like a response and replayed without a request or cost."""
    file, requests = tmp_path / "responses.jsonl", []
    prices = {"short": PriceOverride(input=Decimal(1), output=Decimal(1))}
    paid = Runtime(Settings(base=tmp_path, store="paid.db", prices=prices), clock=VirtualClock())

    def reject(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        requests.append(messages)
        raise ModelContextWindowExceededError("short", "9 tokens where 8 fit")

    agent = Agent(FunctionModel(reject, model_name="short"))
    short = EvalSpec(agent=govern(agent, name="short"), cases=cases, observe=_fault)
    first = await run_evals(paid, short, responses=ResponseCache(file))
    replayed = await run_evals(paid, short, responses=RecordedResponses(file))
    paid.close()
    assert len(requests) == 2
    assert [trial.observed for report in (first, replayed) for trial in report.trials] == [
        {"fault": "input_too_long"}
    ] * 4
    assert [trial.cost for trial in replayed.trials] == [0, 0]


async def test_a_truncated_line(runtime: Runtime, cases: Path, tmp_path: Path) -> None:
    """A truncated last line is requested again; an invalid line before it is an error that names the line."""
    file = tmp_path / "responses.jsonl"
    await run_evals(runtime, Adder(cases).spec, responses=ResponseCache(file))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:20])
    adder = Adder(cases)
    await run_evals(runtime, adder.spec, responses=ResponseCache(file))
    assert adder.requests == 1
    assert len(ResponseCache(file)) == 4
    file.write_text("{}\n" + lines[0])
    with pytest.raises(BadInput, match=r"responses.jsonl:1: not a recorded response"):
        ResponseCache(file)


def _fault(outcome: Outcome[Any]) -> Mapping[str, Any]:
    return {"fault": outcome.fault.code} if isinstance(outcome, Failed) else {}
