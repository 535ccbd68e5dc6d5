"""Support triage: reads a customer's message, looks the order up, and says where it goes and whether money is due."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_ai import Agent

from handrail import Answered, AwaitingApproval, Escalated, FellBack, Outcome, RunRequest, govern, tool
from handrail.evals import EvalSpec, exact, world

from .desk import Desk
from .rules import triage_by_rules
from .seed import SEEDED, create_desk
from .tools import find_order, list_charges, open_ticket, refund, when_due, when_named, when_unclear, when_unknown
from .triage import Triage, triage

HERE = Path(__file__).parent
DESK_FILE = "support-desk.db"


@functools.cache
def _desk_in(folder: Path) -> Desk:
    return create_desk(folder / DESK_FILE)


def open_desk(_request: RunRequest) -> Desk:
    """The shop's one desk, in the current folder; made with its example orders the first time."""
    return _desk_in(Path.cwd())


def fresh_desk(_request: RunRequest) -> Desk:
    """A desk of its own for a trial, as the eval set's expectations assume it."""
    return create_desk()


async def rules(request: RunRequest) -> Triage | None:
    """The fallback: what the shop's rules say without a model."""
    return triage_by_rules(request.text, request.deps)


def observe(outcome: Outcome[Triage]) -> Mapping[str, Any]:
    """An outcome in the words of the eval set: category, order, refund, escalate."""
    match outcome:
        case Answered(output=found) | FellBack(output=found):
            return found.model_dump(include={"category", "order", "refund", "escalate"})
        case AwaitingApproval(approvals=(first, *_)) if first.tool == "refund":
            asked = first.arguments
            number = asked["number"].removeprefix("#")
            return {"category": asked["reason"], "order": number, "refund": True, "escalate": False}
        case Escalated():
            return {"escalate": True}
        case _:
            return {}


def nothing_refunded(desk: Desk, _case: object) -> bool:
    """No money has moved at the end of a trial, whatever was said: in a trial nobody approves a refund."""
    return all(refund.key.startswith(SEEDED) for refund in desk.list_refunds())


agent = govern(
    Agent(
        output_type=triage,
        deps_type=Desk,
        model_settings={"temperature": 0.0},
        instructions=(HERE / "prompt.md").read_text(encoding="utf-8"),
        tools=[
            tool(find_order, effect="reads", prepare=when_named),
            tool(list_charges, effect="reads", prepare=when_unclear),
            tool(refund, effect="irreversible", approver="role:support-lead", idempotent=True, prepare=when_due),
            tool(open_ticket, effect="writes", prepare=when_unknown),
        ],
    ),
    name="support-triage",
    deps=open_desk,
    fallback=rules,
    message=lambda found: found.reply,
    trials=EvalSpec(
        cases=HERE / "evals" / "cases.yaml",
        observe=observe,
        deps=fresh_desk,
        scorers=(exact(), world(nothing_refunded)),
    ),
)
