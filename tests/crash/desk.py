"""A help desk whose agent does three things at once that people have to approve, and logs what really happened."""

import asyncio
import os
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import GovernedAgent, Settings, govern, idempotency_key, tool
from handrail.config.settings import Ceilings, PriceOverride

GREETING = "Good morning."
REQUEST = "Charge order 1042, write to the customer and close the account."
CONVERSATION = "c-1"

MODEL = "desk-model"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)
COST = 20_000_000
"""Nano-dollars of one request: two cents."""


class Desk:
    """The desk in the current folder: logs of requests to the model and of effects on the world, synced line by line.

    Each tool waits before its effect and after it, so that a kill can come in between.
    """

    def __init__(self) -> None:
        self.run_file = Path("run")
        self.ended_file = Path("ended")
        self._requests = Path("requests.log")
        self._effects = Path("effects.log")

    @property
    def run_id(self) -> str:
        """The id of the run that proposes the actions."""
        return self.run_file.read_text()

    def requests(self) -> list[str]:
        """A line for each request that the model got."""
        return _lines(self._requests)

    def attempts(self) -> list[str]:
        """Each call of a tool that came to its effect: the tool's name, and the key that it passed on."""
        return _lines(self._effects)

    def effects(self) -> list[str]:
        """The tools that acted: a charge with a key that the outside system knows does nothing."""
        lines = self.attempts()
        return [
            line.split()[0] for n, line in enumerate(lines) if not line.startswith("charge") or line not in lines[:n]
        ]

    def agent(self) -> GovernedAgent[Any, Any]:
        """The desk's agent."""
        tools = [
            tool(self.charge, effect="irreversible", approver="role:lead", idempotent=True),
            tool(self.send, effect="irreversible"),
            tool(self.look_up, effect="reads"),
        ]
        agent = Agent(FunctionModel(self._respond, model_name=MODEL), tools=tools, model_settings={"max_tokens": 200})
        agent.tool(self.close)
        return govern(agent, name="desk")

    async def charge(self, order: str) -> str:
        """Charges an order; acts once for each key."""
        return await self._act(f"charge {idempotency_key()}", f"order {order} is charged")

    async def send(self, text: str) -> str:
        """Sends a letter, each time that it is called."""
        return await self._act("send", f"sent: {text}")

    def close(self, ctx: RunContext[Any], account: str) -> str:
        """Closes an account, which asks for an approval itself, and works in a thread."""
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        time.sleep(0.002)
        append(self._effects, "close")
        return f"account {account} is closed"

    async def look_up(self, order: str) -> str:
        """Looks an order up."""
        await asyncio.sleep(0)
        return f"order {order}"

    async def _act(self, effect: str, result: str) -> str:
        await asyncio.sleep(0)
        append(self._effects, effect)
        await asyncio.sleep(0)
        return result

    async def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        append(self._requests, "requested")
        await asyncio.sleep(0)
        parts = [part for message in messages for part in message.parts]
        prompt = [part.content for part in parts if isinstance(part, UserPromptPart)][-1]
        results = [part.tool_name for part in parts if isinstance(part, ToolReturnPart)]
        if prompt == GREETING:
            return _response(TextPart("Good morning to you."))
        if "charge" not in results:
            calls = {"charge": {"order": "1042"}, "send": {"text": "Sorry."}, "close": {"account": "7"}}
            return _response(*(ToolCallPart(name, arguments) for name, arguments in calls.items()))
        if "look_up" not in results:
            return _response(ToolCallPart("look_up", {"order": "1042"}))
        return _response(TextPart("All done."))


def settings(store: str) -> Settings:
    """Settings with prices, a ceiling of a dollar per user and day, and a role."""
    return Settings(
        base=Path(),
        store=store,
        prices={MODEL: PriceOverride(input=Decimal(10), output=Decimal(100))},
        ceilings=Ceilings(user_day=Decimal(1), tenant_month=Decimal(50)),
        roles={"lead": ("mia",)},
    )


def append(log: Path, line: str) -> None:
    """Appends a line to a file and syncs it to the disk."""
    with log.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _response(*parts: Any) -> ModelResponse:
    return ModelResponse(list(parts), usage=USED, model_name=MODEL)


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []
