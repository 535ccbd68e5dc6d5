"""`handrail demo`: the reference agent over customers' messages, and how each run ended."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from handrail.evals.eval_set.model import Case
from handrail.evals.runner.eval_run import frozen_set
from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration
from handrail.registry import find_agent
from handrail.runs.agent import GovernedAgent
from handrail.runs.outcome import PATHS, Outcome
from handrail.runs.runtime import Runtime
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_trace

from .model_download import prepare_model
from .output import AsJson, console, excerpt, print_json, show_path, span_trees, table
from .runtime import opened

AGENT = "support-triage"
TENANT = "marlow-finch"


def demo(
    messages: Annotated[int, typer.Option(min=1, help="How many messages.")] = 12, as_json: AsJson = False
) -> None:
    """Run the support-triage agent over messages as customers write them.

    Needs no account and no key: without a model named or a key set it uses the built-in one, downloading it the first
    time. The order desk (`support-desk.db`) and the store (`handrail.db`) are made in the current folder.
    """
    with opened() as runtime:
        screen = console(stderr=as_json)
        screen.print(excerpt(prepare_model(runtime.settings, screen), 2_000), soft_wrap=True)
        governed = find_agent(AGENT, runtime.settings)
        cases = _spread(frozen_set(governed)[0].cases, messages)
        outcomes = asyncio.run(_run_all(governed, cases, screen))
        if as_json:
            print_json([_row(case, outcome) for case, outcome in zip(cases, outcomes, strict=True)])
            return
        _show_slowest(runtime, screen, outcomes)
        _show_shares(screen, outcomes)
    screen.print("[dim]Next: `handrail runs list`, `handrail runs show RUN`, `handrail eval run support-triage`[/]")


async def _run_all(agent: GovernedAgent[Any, Any], cases: Sequence[Case], screen: Console) -> list[Outcome[Any]]:
    numbers = ("requests", "tools", "took", "cost")
    shown: Table = table("message", "outcome", "path", *numbers, right=numbers)
    outcomes: list[Outcome[Any]] = []
    # On a terminal the table grows as runs end; elsewhere it is printed once, whole.
    with Live(shown, console=screen, refresh_per_second=4, vertical_overflow="visible"):
        for number, case in enumerate(cases, start=1):
            outcome = await agent.run(case.input, user=f"customer-{number:02}", tenant=TENANT)
            outcomes.append(outcome)
            facts = outcome.facts
            shown.add_row(
                excerpt(case.input, 44),
                outcome.type,
                show_path(outcome.path),
                str(facts.requests),
                str(len(facts.tools)),
                format_duration(facts.duration),
                show_usd(facts.cost),
            )
    return outcomes


def _show_slowest(runtime: Runtime, screen: Console, outcomes: Sequence[Outcome[Any]]) -> None:
    slowest = max(outcomes, key=lambda outcome: outcome.facts.duration).facts
    _, spans = runtime.database.read_now(lambda conn: load_trace(conn, slowest.trace_id, TENANT))
    screen.print()
    screen.print(span_trees(f"The slowest run, {slowest.run_id}", span_tree(spans)))


def _show_shares(screen: Console, outcomes: Sequence[Outcome[Any]]) -> None:
    counts = {path: sum(outcome.path == path for outcome in outcomes) for path in PATHS}
    shares = [f"{show_path(path)} {100 * count / len(outcomes):.0f}%" for path, count in counts.items() if count]
    screen.print(f"\nPaths of {len(outcomes)} runs: {', '.join(shares) or 'none yet'}")
    if waiting := sum(outcome.path is None for outcome in outcomes):
        screen.print(f"{waiting} more wait for a person to decide on a refund: `handrail approvals list`")


def _row(case: Case, outcome: Outcome[Any]) -> dict[str, Any]:
    return {"case": case.id, "input": case.input, "type": outcome.type, "path": outcome.path, "outcome": outcome}


def _spread(cases: Sequence[Case], wanted: int) -> list[Case]:
    """`wanted` cases spread evenly over the set: its order groups like with like."""
    count = min(wanted, len(cases))
    return [cases[index * len(cases) // count] for index in range(count)]
