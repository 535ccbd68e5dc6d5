"""`handrail demo`: the reference agent on sample customer messages, and how each run ended."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from handrail.config.settings import Settings
from handrail.evals.eval_set.model import Case
from handrail.evals.runner.eval_run import load_frozen_set
from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration
from handrail.models.errors import ModelUnavailable
from handrail.models.factory import prepare_model
from handrail.registry import find_agent, find_eval_spec
from handrail.runs.agent import GovernedAgent
from handrail.runs.outcome import PATHS, Outcome
from handrail.runs.runtime import Runtime
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_trace

from .options import AsJson
from .output import console, excerpt, format_path, print_json, render_span_tree, table
from .runtime import open_runtime

AGENT = "support-triage"
TENANT = "marlow-finch"


def demo(
    messages: Annotated[int, typer.Option(min=1, help="The number of messages.")] = 12, as_json: AsJson = False
) -> None:
    """Run the support-triage agent on sample customer messages.

    No account or key is needed: if no model is configured, a small built-in one is downloaded the first time.
    The demo creates the shop's data (`support-desk.db`) and the store (`handrail.db`) in the current directory.

    Example: `handrail demo --messages 4`
    """
    with open_runtime() as runtime:
        screen = console(stderr=as_json)
        screen.print(excerpt(_prepare_model(runtime.settings), 2_000), soft_wrap=True)
        governed = find_agent(AGENT, runtime.settings)
        cases = _sample(load_frozen_set(find_eval_spec(AGENT, runtime.settings)).cases, messages)
        outcomes = asyncio.run(_run_all(governed, cases, screen))
        if as_json:
            print_json([_to_row(case, outcome) for case, outcome in zip(cases, outcomes, strict=True)])
            return
        _print_slowest(runtime, screen, outcomes)
        _print_path_shares(screen, outcomes)
    screen.print("[dim]Next: `handrail runs list`, `handrail runs show RUN`, `handrail eval run support-triage`[/]")


def _prepare_model(settings: Settings) -> str:
    """Downloads the built-in model if it is used; says which model the runs use, or why they use none."""
    try:
        selected = prepare_model(settings)
    except ModelUnavailable as error:
        return f"No model: {error}. The runs below take the fallback path: the shop's rules, without a model."
    note = " It is small: good for a first look, not for production." if selected.is_builtin else ""
    return f"Model: {selected.name} ({selected.reason}).{note}"


async def _run_all(agent: GovernedAgent[Any, Any], cases: Sequence[Case], screen: Console) -> list[Outcome[Any]]:
    numbers = ("requests", "tools", "duration", "cost")
    rows = table("message", "outcome", "path", *numbers, right=numbers)
    outcomes: list[Outcome[Any]] = []
    # On a terminal the table grows as runs end; elsewhere it is printed once at the end.
    with Live(rows, console=screen, refresh_per_second=4, vertical_overflow="visible"):
        for number, case in enumerate(cases, start=1):
            outcome = await agent.run(case.input, user=f"customer-{number:02}", tenant=TENANT)
            outcomes.append(outcome)
            facts = outcome.facts
            rows.add_row(
                excerpt(case.input, 44),
                outcome.type,
                format_path(outcome.path),
                str(facts.requests),
                str(len(facts.tools)),
                format_duration(facts.duration),
                format_usd(facts.cost),
            )
    return outcomes


def _print_slowest(runtime: Runtime, screen: Console, outcomes: Sequence[Outcome[Any]]) -> None:
    slowest = max(outcomes, key=lambda outcome: outcome.facts.duration).facts
    _, spans = runtime.database.read_now(load_trace(slowest.trace_id, TENANT))
    screen.print()
    screen.print(render_span_tree(f"The slowest run, {slowest.run_id}", span_tree(spans)))


def _print_path_shares(screen: Console, outcomes: Sequence[Outcome[Any]]) -> None:
    counts = {path: sum(outcome.path == path for outcome in outcomes) for path in PATHS}
    shares = [f"{format_path(path)} {100 * count / len(outcomes):.0f}%" for path, count in counts.items() if count]
    screen.print(f"\nPaths of {len(outcomes)} runs: {', '.join(shares) or 'none yet'}")
    if waiting := sum(outcome.path is None for outcome in outcomes):
        screen.print(f"{waiting} more wait for a person to decide on a refund: `handrail approvals list`")


def _to_row(case: Case, outcome: Outcome[Any]) -> dict[str, Any]:
    return {"case": case.id, "input": case.input, "type": outcome.type, "path": outcome.path, "outcome": outcome}


def _sample(cases: Sequence[Case], count: int) -> list[Case]:
    """Cases spread evenly over the set, which has similar ones next to each other."""
    count = min(count, len(cases))
    return [cases[index * len(cases) // count] for index in range(count)]
