"""A shop's agents for the server's tests, with a function as model whose answers follow from the message."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import GovernedAgent, NotFound, Settings, govern, tool
from handrail.config.settings import Ceilings, PriceOverride
from handrail.evals import EvalSpec

MODEL = "shop-model"
USED = RequestUsage(input_tokens=1_000, output_tokens=100)


def settings(folder: Path, **overrides: Any) -> Settings:
    """Settings with a store in `folder`, two cents per request, and a ceiling of a dollar per user and day."""
    defaults: dict[str, Any] = {
        "base": folder,
        "store": "handrail.db",
        "prices": {MODEL: PriceOverride(input=Decimal(10), output=Decimal(100))},
        "ceilings": Ceilings(user_day=Decimal(1)),
        "roles": {"lead": ("mia", "ann")},
    }
    return Settings(**{**defaults, **overrides})


class Shop:
    """The agents, and the refunds that were paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        model = FunctionModel(self._answer, model_name=MODEL)
        tools = [
            tool(self.find_order, effect="reads"),
            tool(self.refund, effect="irreversible", approver="role:lead"),
        ]
        self.specs: dict[str, EvalSpec[Any, Any]] = {}
        self.agents: dict[str, GovernedAgent[Any, Any]] = {"shop": govern(Agent(model, tools=tools), name="shop")}

    def find(self, name: str) -> GovernedAgent[Any, Any]:
        """An agent by its name."""
        if name not in self.agents:
            raise NotFound(f"there is no agent {name!r}")
        return self.agents[name]

    def find_spec(self, name: str) -> EvalSpec[Any, Any]:
        """The eval spec of an agent."""
        if name not in self.specs:
            raise NotFound(f"there is no agent {name!r}")
        return self.specs[name]

    def find_order(self, number: int) -> str:
        """An order's state."""
        if number == 0:
            raise TypeError("a bug in the agent")
        return f"order {number}: <script>alert(1)</script>"

    def refund(self, order: int, reason: str) -> str:
        """Refunds an order."""
        self.paid.append(order)
        return f"paid for {order}, {reason}"

    def _answer(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        prompt = str(next(part.content for part in parts if isinstance(part, UserPromptPart)))
        returned = [part for part in parts if isinstance(part, ToolReturnPart)]
        if "down" in prompt:
            raise ModelAPIError(MODEL, "no answer")
        if "bug" in prompt:
            return _reply(ToolCallPart("find_order", {"number": 0}))
        if "refund" in prompt and not returned:
            return _reply(ToolCallPart("refund", {"order": 1042, "reason": prompt}))
        if "order" in prompt and not returned:
            return _reply(ToolCallPart("find_order", {"number": 1042}))
        return _reply(TextPart(f"You said: {prompt}"))


def _reply(part: TextPart | ToolCallPart) -> ModelResponse:
    return ModelResponse([part], usage=USED, model_name=MODEL)
