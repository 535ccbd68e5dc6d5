"""A user's own agents, as they stand beside a `handrail.toml`: models that are functions, so nothing is downloaded."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, Outcome, govern, tool
from handrail.evals import EvalSpec


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


def pay_back(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    told = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if told:
        return ModelResponse([TextPart(str(told[-1].content))])
    return ModelResponse([ToolCallPart("refund", {"order": "1042"})])


def refund(order: str) -> str:
    with Path("refunds").open("a") as paid:
        paid.write(f"{order}\n")
    return f"Order {order} is refunded."


def _tell() -> None:
    Path("waiting").touch()


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


def _heard(messages: list[ModelMessage]) -> str:
    content = getattr(messages[-1].parts[-1], "content", "")
    assert isinstance(content, str)
    return content


trials: EvalSpec[None, str] = EvalSpec(cases=Path(__file__).parent / "cases.yaml", observe=observe)
echo = govern(Agent(FunctionModel(say_again)), name="echo", trials=trials)
silent = govern(Agent(FunctionModel(stay_silent)), name="silent", trials=trials)
down = govern(Agent(FunctionModel(be_down)), name="down")
wrong = govern(Agent(FunctionModel(be_wrong)), name="wrong")
payer = govern(
    Agent(FunctionModel(pay_back), tools=[tool(refund, effect="irreversible", approver="role:lead")]), name="payer"
)
modelless = govern(Agent(), name="modelless")
bare = Agent()
