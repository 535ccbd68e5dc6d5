"""Starts a governed run that never ends: STORE PLACE. It blocks in its `tool` or `model` and prints a line there."""

import asyncio
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import Runtime, Settings, govern, tool, use_runtime

store, place = sys.argv[1:]


async def block() -> None:
    print(f"blocks in the {place}", flush=True)  # noqa: T201
    await asyncio.Event().wait()


async def find_order(order: int) -> str:
    if place == "tool":
        await block()
    return f"order {order} is on its way"


async def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    if len(messages) > 1:
        await block()
    return ModelResponse(
        [ToolCallPart("find_order", {"order": 1042})], usage=RequestUsage(input_tokens=30, output_tokens=5)
    )


support = govern(Agent(FunctionModel(reply), tools=[tool(find_order, effect="reads")]), name="support")
with use_runtime(Runtime(Settings(base=Path.cwd(), store=store))):
    support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
