"""A user's own agents, as they stand beside a `handrail.toml`: models that are functions, so nothing is downloaded."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, Outcome, Trials, govern


def say_again(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart(f"You said: {_heard(messages)}")])


async def stay_silent(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if _heard(messages) != "hello":
        _tell()
        await asyncio.Event().wait()
    return say_again(messages, info)


def be_down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    raise ModelAPIError("tiny", "no answer")


def be_wrong(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    raise TypeError("a bug in the agent")


def _tell() -> None:
    Path("waiting").touch()


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


def _heard(messages: list[ModelMessage]) -> str:
    content = getattr(messages[-1].parts[-1], "content", "")
    assert isinstance(content, str)
    return content


trials: Trials[None, str] = Trials(cases=Path(__file__).parent / "cases.yaml", observe=observe)
echo = govern(Agent(FunctionModel(say_again)), name="echo", trials=trials)
silent = govern(Agent(FunctionModel(stay_silent)), name="silent", trials=trials)
down = govern(Agent(FunctionModel(be_down)), name="down")
wrong = govern(Agent(FunctionModel(be_wrong)), name="wrong")
modelless = govern(Agent(), name="modelless")
bare = Agent()
