"""`handrail run`: one governed run, typed in."""

import asyncio
import sys
from typing import Annotated

import typer

from handrail.kernel.errors import BadInput
from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration
from handrail.registry import find_agent
from handrail.runs.outcome import AwaitingApproval, Escalated, Failed, Refused

from .output import AsJson, console, excerpt, print_json, show_path
from .runtime import opened


def run(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    text: Annotated[str, typer.Argument(help="The user's message, or - to read it from standard input.")],
    user: Annotated[str, typer.Option(help="Who asks.")] = "me",
    tenant: Annotated[str, typer.Option(help="Whose user that is.")] = "default",
    conversation: Annotated[str | None, typer.Option(help="Goes on with this conversation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an agent once and print how it ended; exit code 1 when it failed or was refused.

    Example: `handrail run support-triage "Where is my order 1042?"`
    """
    message = _standard_input() if text == "-" else text
    with opened() as runtime:
        governed = find_agent(agent, runtime.settings)
        outcome = asyncio.run(governed.run(message, user=user, tenant=tenant, conversation_id=conversation))
    if as_json:
        print_json({"type": outcome.type, "path": outcome.path, "outcome": outcome})
    else:
        _show(outcome)
    if isinstance(outcome, Failed | Refused):
        raise typer.Exit(1)


def _show(outcome: object) -> None:
    screen = console()
    assert hasattr(outcome, "facts")
    facts = outcome.facts
    screen.print(f"[bold]{type(outcome).__name__}[/]  {show_path(getattr(outcome, 'path', None))}")
    screen.print(excerpt(getattr(outcome, "message", ""), 2_000), soft_wrap=True)
    output = getattr(outcome, "output", None)
    if output is not None and not isinstance(output, str):
        screen.print(excerpt(repr(output), 2_000), soft_wrap=True)
    if isinstance(outcome, AwaitingApproval):
        for each in outcome.approvals:
            call = f"{each.tool} {excerpt(str(dict(each.arguments)), 200)}"
            screen.print(
                f"Waits for {excerpt(each.approver, 100)}: {call}; `handrail approvals show {each.approval_id}`"
            )
    if isinstance(outcome, Escalated):
        for proposal in outcome.proposals:
            screen.print(f"Proposed, not done: {proposal.tool} {excerpt(str(dict(proposal.arguments)), 200)}")
    if isinstance(outcome, Refused):
        screen.print(f"[dim]{excerpt(str(outcome.refusal), 300)}[/]", soft_wrap=True)
    fault = getattr(outcome, "fault", None)
    if fault is not None:
        screen.print(f"[dim]{fault.code}: {excerpt(fault.detail, 300)}[/]", soft_wrap=True)
    screen.print(
        f"[dim]{format_duration(facts.duration)}, {facts.requests} model requests, {show_usd(facts.cost)}; "
        f"`handrail runs show {facts.run_id}`[/]",
        soft_wrap=True,
    )


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"standard input: not valid UTF-8 at byte {error.start}; convert it first") from None
