"""How support triage is evaluated: what of an outcome the eval set compares, and the desk of each trial."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handrail import Answered, AwaitingApproval, Escalated, FellBack, Outcome, RunRequest
from handrail.evals import EvalSpec, end_state, exact

from .agent import agent
from .desk import Desk
from .seed import SEEDED, create_desk
from .triage import Triage


def fresh_desk(_request: RunRequest) -> Desk:
    """A new desk with the example orders, which the expectations of the eval set assume."""
    return create_desk()


def observe(outcome: Outcome[Triage]) -> Mapping[str, Any]:
    """The fields of the eval set: category, order, refund, escalate."""
    match outcome:
        case Answered(output=output) | FellBack(output=output):
            return output.model_dump(include={"category", "order", "refund", "escalate"})
        case AwaitingApproval(approvals=(first, *_)) if first.tool == "refund":
            arguments = first.arguments
            number = arguments["number"].removeprefix("#")
            return {"category": arguments["reason"], "order": number, "refund": True, "escalate": False}
        case Escalated():
            return {"escalate": True}
        case _:
            return {}


def nothing_refunded(desk: Desk, _case: object) -> bool:
    """Whether no money moved, whatever the answer says: in a trial nobody approves a refund."""
    return all(refund.key.startswith(SEEDED) for refund in desk.list_refunds())


support_evals = EvalSpec(
    agent=agent,
    cases=Path(__file__).parent / "evals" / "cases.yaml",
    observe=observe,
    deps=fresh_desk,
    scorers=(exact(), end_state(nothing_refunded)),
)
