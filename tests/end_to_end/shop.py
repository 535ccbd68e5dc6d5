"""A small shop for the end-to-end tests, with a simulated model that sorts messages by its prompt."""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import (
    Answered,
    AwaitingApproval,
    FellBack,
    GovernedAgent,
    Outcome,
    RunRequest,
    Settings,
    govern,
    idempotency_key,
    tool,
)
from handrail.config.settings import Ceilings, PriceOverride
from handrail.evals import EvalSpec

PROMPT = "Sort messages by: billing, delivery."
WORSE = "Sort messages by: delivery."
FIXED = "Sort messages by: billing, delivery, cancel."

CHARGED_TWICE = "I was charged twice for order 1042."
CANCEL = "Please stop order 1007."
_WORDS = {"billing": "charged", "delivery": "parcel", "cancel": "stop"}

MODEL = "shop-model"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)
COST = 20_000_000
"""Nano-dollars of one request: two cents."""

CASES = f"""\
name: shop
description: Messages to a shop.
cases:
  - id: charged-twice
    input: {CHARGED_TWICE}
    expect: {{category: billing, refund: true}}
    source: written for this test
    date: 2026-01-01

  - id: where-is-it
    input: Where is my parcel?
    expect: {{category: delivery, refund: false}}
    source: written for this test
    date: 2026-01-01
"""


class SortedMessage(BaseModel):
    """What a message is about."""

    category: str


class Shop:
    """The shop in a folder: its eval set, and logs of model calls and refunds, synced line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases = folder / "cases.yaml"
        self.calls = folder / "calls.log"
        self.refunds = folder / "refunds.log"

    def agent(self, prompt: str) -> GovernedAgent[Any, Any]:
        """The shop's agent with a version of its prompt."""
        model = FunctionModel(self._respond, model_name=MODEL)
        pay = tool(self.refund, effect="irreversible", approver="role:lead")
        return govern(
            Agent(
                model, output_type=SortedMessage, instructions=prompt, tools=[pay], model_settings={"max_tokens": 200}
            ),
            name="shop",
            fallback=_other,
        )

    def spec(self, prompt: str) -> EvalSpec[Any, Any]:
        """The eval spec of that version."""
        return EvalSpec(agent=self.agent(prompt), cases=self.cases, observe=observe)

    def refund(self, order: str) -> str:
        """Refunds an order."""
        append(self.refunds, idempotency_key())
        return f"order {order} is refunded"

    def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        append(self.calls, "called")
        text = next(str(part.content) for part in _parts(messages) if isinstance(part, UserPromptPart))
        instructions = info.instructions or ""
        category = next((name for name, word in _WORDS.items() if name in instructions and word in text), "other")
        if category == "billing" and "second try" not in instructions and not any(map(_has_refund_part, messages)):
            return _calls("final_result", {"kind": category})
        if category == "billing" and not any(isinstance(part, ToolReturnPart) for part in _refund_parts(messages)):
            return _calls("refund", {"order": "1042"})
        return _calls("final_result", {"category": category})


def observe(outcome: Outcome[SortedMessage]) -> Mapping[str, Any]:
    """The fields of an outcome that the eval set expects."""
    match outcome:
        case AwaitingApproval():
            return {"category": "billing", "refund": True}
        case Answered(output=output) | FellBack(output=output):
            return {"category": output.category, "refund": False}
        case _:
            return {}


def settings(folder: Path, store: str) -> Settings:
    """Settings with prices, a ceiling of a dollar per user and day, and a role."""
    return Settings(
        base=folder,
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


async def _other(_request: RunRequest) -> SortedMessage:
    return SortedMessage(category="other")


def _calls(name: str, arguments: dict[str, str]) -> ModelResponse:
    return ModelResponse([ToolCallPart(name, arguments)], usage=USED, model_name=MODEL)


def _parts(messages: list[ModelMessage]) -> list[Any]:
    return [part for message in messages for part in message.parts]


def _refund_parts(messages: list[ModelMessage]) -> list[Any]:
    return [part for part in _parts(messages) if getattr(part, "tool_name", "") == "refund"]


def _has_refund_part(message: ModelMessage) -> bool:
    return any(getattr(part, "tool_name", "") == "refund" for part in message.parts)
