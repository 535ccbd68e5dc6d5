"""A governed agent with a typed output and typed dependencies, as the other files here use it.

Nothing in this folder runs. mypy and basedpyright check it in `make lint`: a changed type is an error, and so is a
line marked as an error that no longer is one.
"""

from dataclasses import dataclass

from pydantic import BaseModel
from pydantic_ai import Agent

from handrail import GovernedAgent, RunRequest, govern


class Triage(BaseModel):
    category: str


@dataclass
class Desk:
    tenant: str


def open_desk(request: RunRequest) -> Desk:
    return Desk(request.tenant)


async def triage_by_rules(request: RunRequest) -> Triage | None:
    return Triage(category="other") if request.text else None


triage_agent = Agent("test", output_type=Triage, deps_type=Desk)
support: GovernedAgent[Desk, Triage] = govern(
    triage_agent, name="support", deps=open_desk, fallback=triage_by_rules, message=lambda triage: triage.category
)
