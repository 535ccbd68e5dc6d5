"""Starts a governed run that never ends: STORE PLACE, where PLACE is `tool` or `model`. Prints a line once it hangs."""

import asyncio
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import Runtime, Settings, govern, tool, use_runtime

store, place = sys.argv[1:]


async def hang() -> None:
    print(f"hangs in the {place}", flush=True)  # noqa: T201
    await asyncio.Event().wait()


async def look(order: int) -> str:
    if place == "tool":
        await hang()
    return f"order {order} is on its way"


async def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    if len(messages) > 1:
        await hang()
    return ModelResponse([ToolCallPart("look", {"order": 1042})], usage=RequestUsage(input_tokens=30, output_tokens=5))


support = govern(Agent(FunctionModel(reply), tools=[tool(look, effect="reads")]), name="support")
with use_runtime(Runtime(Settings(base=Path.cwd(), store=store))):
    support.run_sync("Where is order 1042?", user="u-1", tenant="acme")
