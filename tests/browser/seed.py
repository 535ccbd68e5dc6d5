"""A store as it looks after a day of a shop's agents: runs in virtual time, so that it is the same everywhere."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import GovernedAgent, RunRequest, Runtime, Settings, feedback, govern, tool, use_runtime
from handrail.config.settings import Ceilings, Price
from handrail.review.approvals.store import decide, list_approvals
from handrail.testing import VirtualClock
from handrail.worker import run_due

MODELS = {"claude-sonnet-5": (3, 15), "gpt-5.6-mini": (0.4, 1.6)}
TENANTS = {"acme": 5, "globex": 3, "initech": 1}
MESSAGES = (
    "Where is my order 1042?",
    "I was charged twice for order 1017, please refund one of them.",
    "The kettle from order 1016 gave off smoke. What now?",
    "Can I change the delivery address of order 1048?",
    "Beim Auspacken der Lampe aus Bestellung 1021 ist das Glas zerbrochen.",
    "An invoice with our company's name on it, please.",
)


def settings(folder: Path) -> Settings:
    """The demo's settings: list prices, a ceiling for each user and tenant."""
    prices = {name: Price(input=Decimal(str(i)), output=Decimal(str(o))) for name, (i, o) in MODELS.items()}
    ceilings = Ceilings(user_day=Decimal("1.50"), tenant_month=Decimal(60), run_input_tokens=60_000)
    return Settings(
        base=folder, store="handrail.db", prices=prices, ceilings=ceilings, roles={"support-lead": ("mia", "ann")}
    )


class Desk:
    """A support agent whose every delay is virtual."""

    def __init__(self, clock: VirtualClock, chance: random.Random | None = None) -> None:
        self._clock = clock
        self._chance = chance or random.Random(1)
        self.agents = {"support-triage": self._governed("support-triage"), "returns": self._governed("returns")}

    def find(self, name: str) -> GovernedAgent[Any, Any]:
        """An agent by its name."""
        return self.agents[name]

    def _governed(self, name: str) -> GovernedAgent[Any, Any]:
        model = FunctionModel(self._answer, model_name="claude-sonnet-5" if name == "returns" else "gpt-5.6-mini")
        tools = [
            tool(self.find_order, effect="reads"),
            tool(self.search_policy, effect="reads"),
            tool(self.refund, effect="irreversible", approver="role:support-lead"),
        ]
        return govern(Agent(model, tools=tools), name=name, fallback=_by_rules)

    async def find_order(self, number: int) -> dict[str, Any]:
        """An order by its number."""
        self._pass(1.9)
        return {"number": number, "state": "shipped", "total": "129.00", "carrier": "DHL"}

    async def search_policy(self, question: str) -> str:
        """What the shop's policy says."""
        self._pass(0.4)
        return f"Policy on {question!r}: goods may be returned within 30 days."

    async def refund(self, order: int, amount: str) -> str:
        """Pays money back."""
        self._pass(0.6)
        return f"refunded {amount} for order {order}"

    def _answer(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        said = str(next(part.content for part in parts if isinstance(part, UserPromptPart)))
        done = [part.tool_name for part in parts if isinstance(part, ToolReturnPart)]
        self._pass(1.1)
        if self._chance.random() < 0.06:
            raise ModelAPIError("model", "overloaded")
        large = self._chance.random() < 0.08
        usage = RequestUsage(
            input_tokens=2_000 if large else 500 + 200 * len(done), output_tokens=2_500 if large else 180
        )
        return ModelResponse([_next(said, done)], usage=usage)

    def _pass(self, seconds: float) -> None:
        self._clock.advance(round(seconds * self._chance.lognormvariate(0, 0.35), 3))


def _next(said: str, done: list[str]) -> TextPart | ToolCallPart:
    if "order" in said and "find_order" not in done:
        return ToolCallPart("find_order", {"number": 1042})
    if ("refund" in said or "smoke" in said) and "search_policy" not in done:
        return ToolCallPart("search_policy", {"question": "money back"})
    if "refund" in said and "refund" not in done:
        return ToolCallPart("refund", {"order": 1017, "amount": "129.00 EUR"})
    return TextPart("Thank you for writing. I have looked into it, and you will hear from us by e-mail today.")


async def _by_rules(_request: RunRequest) -> str:
    return "We have received your message and answer within a day."


async def fill(folder: Path, until: datetime, runs: int = 160) -> Runtime:
    """A runtime in `folder` over a store with so many runs, the last of them just before `until`."""
    chance = random.Random(7)
    clock = VirtualClock(until - timedelta(hours=23))
    runtime = Runtime(settings(folder), clock=clock)
    desk = Desk(clock, chance)
    with use_runtime(runtime):
        for number in range(runs):
            tenant = chance.choices([*TENANTS], [*TENANTS.values()])[0]
            agent = desk.find("returns" if chance.random() < 0.3 else "support-triage")
            message = MESSAGES[int(chance.random() ** 1.4 * len(MESSAGES))]
            outcome = await agent.run(message, user=f"u-{chance.randrange(1, 12)}", tenant=tenant)
            if number % 4 and outcome.type != "awaiting_approval":
                await feedback(outcome.facts.run_id, right=chance.random() < 0.9, by="ann")
            clock.advance(chance.expovariate(1 / (22 * 3_600 / runs)))
            if number % 3:
                await _decide_some(runtime, desk)
        for number, tenant in enumerate(TENANTS):
            # Nobody has decided these yet.
            await desk.find("returns").run(MESSAGES[1], user=f"u-{20 + number}", tenant=tenant)
            clock.advance(60)
    return runtime


async def _decide_some(runtime: Runtime, desk: Desk) -> None:
    now, roles = runtime.clock.now(), runtime.settings.roles
    waiting = await runtime.database.read(
        lambda conn: list_approvals(conn, state="pending", tenant=None, limit=1, before=None)
    )
    for each in waiting:
        await runtime.database.write(decide(each.approval_id, "approved", "mia", roles, "charged twice, checked", now))
    await run_due(runtime, desk.find)


def just_now() -> datetime:
    """The end of the current minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0)
