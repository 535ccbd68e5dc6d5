"""`handrail run`: runs an agent once on a text from the command line."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from handrail.kernel.errors import BadInput
from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration
from handrail.registry import find_agent
from handrail.runs.outcome import AwaitingApproval, Escalated, Failed, Outcome, Refused

from .options import AsJson
from .output import console, count, excerpt, format_path, print_json
from .runtime import open_runtime


def run(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    text: Annotated[str, typer.Argument(help="The user's message, or - to read it from standard input.")],
    user: Annotated[str, typer.Option(help="The user that the agent runs for.")] = "me",
    tenant: Annotated[str, typer.Option(help="The user's tenant.")] = "default",
    conversation: Annotated[str | None, typer.Option(help="Continue this conversation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an agent once and print how the run ended.

    Exit code 1 if the run failed or was refused.

    Example: `handrail run support-triage "Where is my order 1042?"`
    """
    message = _read_standard_input() if text == "-" else text
    with open_runtime() as runtime:
        governed = find_agent(agent, runtime.settings)
        outcome = asyncio.run(governed.run(message, user=user, tenant=tenant, conversation_id=conversation))
    if as_json:
        print_json({"type": outcome.type, "path": outcome.path, "outcome": outcome})
    else:
        _print(outcome)
    if isinstance(outcome, Failed | Refused):
        raise typer.Exit(1)


def _print(outcome: Outcome[Any]) -> None:
    screen, facts = console(), outcome.facts
    screen.print(f"[bold]{type(outcome).__name__}[/]  {format_path(outcome.path)}")
    screen.print(excerpt(getattr(outcome, "message", ""), 2_000), soft_wrap=True)
    output = getattr(outcome, "output", None)
    if output is not None and not isinstance(output, str):
        screen.print(excerpt(repr(output), 2_000), soft_wrap=True)
    if isinstance(outcome, AwaitingApproval):
        for approval in outcome.approvals:
            call = f"{approval.tool} {excerpt(str(dict(approval.arguments)), 200)}"
            command = f"`handrail approvals show {approval.approval_id}`"
            screen.print(f"Waiting for {excerpt(approval.approver, 100)}: {call}; {command}")
    if isinstance(outcome, Escalated):
        reason = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
        screen.print(f"[dim]{excerpt(reason, 600)}[/]", soft_wrap=True)
        for proposal in outcome.proposals:
            arguments = excerpt(str(dict(proposal.arguments)), 200)
            screen.print(f"Proposed but not executed: {proposal.tool} {arguments}")
    if isinstance(outcome, Refused):
        screen.print(f"[dim]{excerpt(str(outcome.refusal), 300)}[/]", soft_wrap=True)
    fault = getattr(outcome, "fault", None)
    if fault is not None:
        screen.print(f"[dim]{fault.code}: {excerpt(fault.detail, 300)}[/]", soft_wrap=True)
    screen.print(
        f"[dim]{format_duration(facts.duration)}, {count(facts.requests, 'model request')}, {format_usd(facts.cost)}; "
        f"`handrail runs show {facts.run_id}`[/]",
        soft_wrap=True,
    )


def _read_standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"standard input: not valid UTF-8 at byte {error.start}; convert it first") from None
