"""A user's own agents, next to a `handrail.toml`. Their models are functions, so nothing is downloaded."""

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


def repeat(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart(f"You said: {_last_text(messages)}")])


async def block_unless_hello(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if _last_text(messages) != "hello":
        _signal_waiting()
        await asyncio.Event().wait()
    return repeat(messages, info)


def be_unavailable(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    raise ModelAPIError("tiny", "no answer")


def raise_bug() -> str:
    raise TypeError("a bug in the agent")


def call_refund(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if results:
        return ModelResponse([TextPart(str(results[-1].content))])
    return ModelResponse([ToolCallPart("refund", {"order": "1042"})])


def refund(order: str) -> str:
    with Path("refunds").open("a") as log:
        log.write(f"{order}\n")
    return f"Order {order} is refunded."


def _signal_waiting() -> None:
    Path("waiting").touch()


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


def _last_text(messages: list[ModelMessage]) -> str:
    content = getattr(messages[-1].parts[-1], "content", "")
    assert isinstance(content, str)
    return content


cases = Path(__file__).parent / "cases.yaml"
echo = govern(Agent(FunctionModel(repeat)), name="echo")
echo_evals = EvalSpec(agent=echo, cases=cases, observe=observe)
silent = govern(Agent(FunctionModel(block_unless_hello)), name="silent")
silent_evals = EvalSpec(agent=silent, cases=cases, observe=observe)
down = govern(Agent(FunctionModel(be_unavailable)), name="down")
wrong = govern(Agent(FunctionModel(repeat), instructions=raise_bug), name="wrong")
payer = govern(
    Agent(FunctionModel(call_refund), tools=[tool(refund, effect="irreversible", approver="role:lead")]), name="payer"
)
modelless = govern(Agent(), name="modelless")
bare = Agent()
