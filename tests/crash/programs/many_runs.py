"""Makes COUNT concurrent governed runs: STORE COUNT. Starts at a line on standard input and prints the runs' ids."""

import asyncio
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Runtime, Settings, govern, use_runtime

store, count = sys.argv[1:]


def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("It is on its way.")])


support = govern(Agent(FunctionModel(reply)), name="support")


async def main() -> None:
    outcomes = await asyncio.gather(*(support.run("Where is it?", user=f"u-{n}") for n in range(int(count))))
    for outcome in outcomes:
        print(outcome.facts.run_id)  # noqa: T201


print("ready", flush=True)  # noqa: T201
sys.stdin.readline()
runtime = Runtime(Settings(base=Path.cwd(), store=store))
with use_runtime(runtime):
    asyncio.run(main())
runtime.close()
