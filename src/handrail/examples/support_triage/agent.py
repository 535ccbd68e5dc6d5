"""Support triage: reads a customer's message, looks the order up, and decides where it goes and if a refund is due."""

import functools
from pathlib import Path

from pydantic_ai import Agent

from handrail import RunRequest, govern, tool

from .desk import Desk
from .rules import triage_by_rules
from .seed import create_desk
from .tools import find_order, list_charges, open_ticket, refund, when_due, when_named, when_unclear, when_unknown
from .triage import Triage, triage

HERE = Path(__file__).parent
DESK_FILE = "support-desk.db"


@functools.cache
def _desk_in(folder: Path) -> Desk:
    return create_desk(folder / DESK_FILE)


def open_desk(_request: RunRequest) -> Desk:
    """The shop's desk in the current folder; created with its example orders the first time."""
    return _desk_in(Path.cwd())


async def rules(request: RunRequest) -> Triage | None:
    """The fallback: what the shop's rules say without a model."""
    return triage_by_rules(request.text, request.deps)


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
    message=lambda output: output.reply,
)
