"""A reproducible store with one day of runs of a shop's agents, made in virtual time."""

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
from handrail.config.settings import Ceilings, PriceOverride
from handrail.review.approvals.queries import list_approvals
from handrail.review.approvals.store import decide
from handrail.testing import VirtualClock
from handrail.worker import run_due_jobs

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
    """Settings with list prices and ceilings for each user and tenant."""
    prices = {name: PriceOverride(input=Decimal(str(i)), output=Decimal(str(o))) for name, (i, o) in MODELS.items()}
    ceilings = Ceilings(user_day=Decimal("1.50"), tenant_month=Decimal(60), run_input_tokens=60_000)
    return Settings(
        base=folder, store="handrail.db", prices=prices, ceilings=ceilings, roles={"support-lead": ("mia", "ann")}
    )


class Desk:
    """Support agents whose delays are virtual."""

    def __init__(self, clock: VirtualClock, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._random = rng or random.Random(1)
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
        return govern(Agent(model, tools=tools), name=name, fallback=_fallback)

    async def find_order(self, number: int) -> dict[str, Any]:
        """An order by its number."""
        self._pass(1.9)
        return {"number": number, "state": "shipped", "total": "129.00", "carrier": "DHL"}

    async def search_policy(self, question: str) -> str:
        """The shop's policy on a question."""
        self._pass(0.4)
        return f"Policy on {question!r}: goods may be returned within 30 days."

    async def refund(self, order: int, amount: str) -> str:
        """Pays money back."""
        self._pass(0.6)
        return f"refunded {amount} for order {order}"

    def _answer(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        prompt = str(next(part.content for part in parts if isinstance(part, UserPromptPart)))
        called = [part.tool_name for part in parts if isinstance(part, ToolReturnPart)]
        self._pass(1.1)
        if self._random.random() < 0.06:
            raise ModelAPIError("model", "overloaded")
        large = self._random.random() < 0.08
        usage = RequestUsage(
            input_tokens=2_000 if large else 500 + 200 * len(called), output_tokens=2_500 if large else 180
        )
        return ModelResponse([_next(prompt, called)], usage=usage)

    def _pass(self, seconds: float) -> None:
        self._clock.advance(round(seconds * self._random.lognormvariate(0, 0.35), 3))


def _next(prompt: str, called: list[str]) -> TextPart | ToolCallPart:
    if "order" in prompt and "find_order" not in called:
        return ToolCallPart("find_order", {"number": 1042})
    if ("refund" in prompt or "smoke" in prompt) and "search_policy" not in called:
        return ToolCallPart("search_policy", {"question": "money back"})
    if "refund" in prompt and "refund" not in called:
        return ToolCallPart("refund", {"order": 1017, "amount": "129.00 EUR"})
    return TextPart("Thank you for writing. I have looked into it, and you will hear from us by e-mail today.")


async def _fallback(_request: RunRequest) -> str:
    return "We have received your message and answer within a day."


async def fill(folder: Path, until: datetime, runs: int = 160) -> Runtime:
    """A runtime with a store in `folder` that has `runs` runs, the last of them shortly before `until`."""
    rng = random.Random(7)
    clock = VirtualClock(until - timedelta(hours=23))
    runtime = Runtime(settings(folder), clock=clock)
    desk = Desk(clock, rng)
    with use_runtime(runtime):
        for number in range(runs):
            tenant = rng.choices([*TENANTS], [*TENANTS.values()])[0]
            agent = desk.find("returns" if rng.random() < 0.3 else "support-triage")
            message = MESSAGES[int(rng.random() ** 1.4 * len(MESSAGES))]
            outcome = await agent.run(message, user=f"u-{rng.randrange(1, 12)}", tenant=tenant)
            if number % 4 and outcome.type != "awaiting_approval":
                await feedback(outcome.facts.run_id, right=rng.random() < 0.9, by="ann")
            clock.advance(rng.expovariate(1 / (22 * 3_600 / runs)))
            if number % 3:
                await _decide_some(runtime, desk)
        for number, tenant in enumerate(TENANTS):
            # These stay pending.
            await desk.find("returns").run(MESSAGES[1], user=f"u-{20 + number}", tenant=tenant)
            clock.advance(60)
    return runtime


async def _decide_some(runtime: Runtime, desk: Desk) -> None:
    now, roles = runtime.clock.now(), runtime.settings.roles
    pending = await runtime.database.read(list_approvals(now, state="pending", tenant=None, limit=1, before=None))
    for approval in pending:
        await runtime.database.write(
            decide(approval.approval_id, "approved", "mia", roles, "charged twice, checked", now)
        )
    await run_due_jobs(runtime, desk.find)


def just_now() -> datetime:
    """The start of the current minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0)
