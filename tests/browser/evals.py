"""Eval runs of a triage agent: a baseline, a change of its prompt that is blocked, and one that passes."""

import random
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from handrail import Answered, GovernedAgent, Outcome, Runtime, govern, tool
from handrail.evals import EvalSpec
from handrail.evals.eval_set.lock import freeze
from handrail.evals.gate.baseline import create_baseline
from handrail.evals.gate.gate import run_gate
from handrail.testing import VirtualClock

NAME = "triage"
_SORT = "Sort the message of a shop's customer.\n\n"
_SAFETY = "Goods that smoke, burn or hurt somebody are `safety`, whatever else\nthe customer asks for.\n"
_BRIEF = "Answer with the category and nothing else."
_LOOK_UP = "\nLook the order up first."
PROMPTS = (_SORT + _SAFETY + _BRIEF, _SORT + _BRIEF + _LOOK_UP, _SORT + _SAFETY + _BRIEF + _LOOK_UP)
_MESSAGES = {
    "delivery": ("Where is order {n}?", "Order {n} should have come on Monday.", "Can order {n} go to my neighbour?"),
    "refund": ("I was charged twice for order {n}.", "Please pay back order {n}, it was never sent."),
    "return": ("The lamp of order {n} is too large, I send it back.", "How do I return order {n}?"),
    "safety": ("The kettle of order {n} gave off smoke.", "The charger of order {n} burned my hand. Pay me back."),
}


class Triage:
    """A triage agent with three prompts. Its answers follow from prompt and message; its delays are virtual."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self._cases = folder / "cases.yaml"
        self._clock = clock
        self._random = random.Random(3)

    def agent(self, version: int) -> GovernedAgent[Any, str]:
        """The agent with prompt `version`."""
        agent: Agent[Any, str] = Agent(
            FunctionModel(self._answer, model_name="gpt-5.6-mini"),
            instructions=PROMPTS[version],
            tools=[tool(self.find_order, effect="reads")],
        )
        return govern(agent, name=NAME)

    def spec(self, version: int) -> EvalSpec[Any, str]:
        """The eval spec of the agent with prompt `version`."""
        return EvalSpec(agent=self.agent(version), cases=self._cases, observe=_category)

    async def find_order(self, number: int) -> dict[str, Any]:
        """An order by its number."""
        self._clock.advance(0.2)
        return {"number": number, "state": "shipped", "items": ["kettle"]}

    async def fill(self, runtime: Runtime, cases: int = 60) -> None:
        """Creates a frozen eval set, a baseline, and the gate's verdicts on two changes, each a day apart."""
        self._write(cases)
        await create_baseline(runtime, self.spec(0), by="mia", trials=2)
        for version in (1, 2):
            self._clock.advance(86_400)
            await run_gate(runtime, self.spec(version))

    def _write(self, cases: int) -> None:
        messages = [(category, text) for category, texts in _MESSAGES.items() for text in texts]
        rows = [
            {
                "id": f"{category}-{1000 + number}",
                "input": text.format(n=1000 + number),
                "expect": {"category": category},
                "source": "ticket 2026-02",
                "date": date(2026, 2, 1),
            }
            for number in range(cases)
            for category, text in [messages[number % len(messages)]]
        ]
        document = {"name": NAME, "description": "What customers write to a shop.", "cases": rows}
        self._cases.write_text(yaml.safe_dump(document, sort_keys=False))
        freeze(self._cases, "the first sixty tickets", date(2026, 2, 1))

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        message = str(next(part.content for part in parts if isinstance(part, UserPromptPart)))
        prompt = info.instructions or ""
        self._clock.advance(round(0.8 * self._random.lognormvariate(0, 0.3), 3))
        if "Look the order up" in prompt and not any(isinstance(part, ToolReturnPart) for part in parts):
            number = next(int(word.strip(".,?")) for word in message.split() if word.strip(".,?").isdigit())
            return _response(ToolCallPart("find_order", {"number": number}))
        return _response(TextPart(_classify(message, careful="safety" in prompt)))


def _classify(message: str, *, careful: bool) -> str:
    if "smoke" in message or "burned" in message:
        return "safety" if careful else "refund" if "Pay" in message else "return"
    if "charged" in message or "pay back" in message:
        return "refund"
    return "return" if "return" in message or "send it back" in message else "delivery"


def _response(part: TextPart | ToolCallPart) -> ModelResponse:
    return ModelResponse([part], usage=RequestUsage(input_tokens=400, output_tokens=20))


def _category(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"category": outcome.output} if isinstance(outcome, Answered) else {}
