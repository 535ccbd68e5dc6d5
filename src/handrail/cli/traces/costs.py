"""`handrail traces cost` and `waste`: where the money goes, and what of it led nowhere."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from sqlalchemy import Connection

from handrail.cli.output import AsJson, console, excerpt, print_json, table
from handrail.cli.runtime import opened
from handrail.cli.time_ranges import Since, load_each, moment, spread
from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration
from handrail.traces.analysis.cost_drivers import Difference, Few, dearest, differences
from handrail.traces.analysis.waste import Waste, waste_of
from handrail.traces.store.queries import (
    SpendRow,
    TraceCost,
    Ungoverned,
    spend_by,
    top_traces,
    trace_costs,
    ungoverned_spend,
)

SAMPLE = 100
"""Traces of each side that are gone through for what is different about them."""
_DEAREST = 5

By = Literal["user", "tenant", "agent", "model", "fingerprint", "day"]


@dataclass(frozen=True)
class _Costs:
    rows: Sequence[SpendRow]
    few: Few
    dear: Sequence[TraceCost]
    compared: tuple[int, int]
    differences: Sequence[Difference]


def cost(
    by: Annotated[By, typer.Option(help="Whose or what's cost.")] = "user",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    since: Since = "30d",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Where the money goes, how few traces make 80% of it, and what is different about them.

    Examples: `handrail traces cost`, `handrail traces cost --by model --since 7d --tenant acme`
    """
    with opened() as runtime:
        now = runtime.clock.now()
        began = moment(since, now)
        found = runtime.database.read_now(lambda conn: _costs(conn, by, tenant, agent, (began, now), limit))
    if as_json:
        print_json(_document(found))
        return
    screen = console()
    if not found.rows:
        screen.print(f"No model requests since {since}. `handrail demo` makes some; `--since 90d` goes further back.")
        return
    _print_rows(screen, by, found.rows)
    _print_few(screen, found)


def waste(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    since: Since = "30d",
    traces: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the latest traces to go through.")] = 500,
    as_json: AsJson = False,
) -> None:
    """What was paid and waited for and led nowhere, and what was spent around every ceiling.

    Example: `handrail traces waste --since 7d`
    """
    with opened() as runtime:
        now = runtime.clock.now()
        began = moment(since, now)

        def query(conn: Connection) -> tuple[Waste, int, Sequence[Ungoverned]]:
            latest = top_traces(conn, tenant=tenant, since=began, until=now, agent=agent, limit=traces)
            loaded = load_each(conn, latest)
            around = ungoverned_spend(conn, tenant=tenant, since=began, until=now)
            return waste_of(loaded), len(loaded), [each for each in around if agent in (None, each.agent)]

        found, looked_at, around = runtime.database.read_now(query)
    if as_json:
        print_json({"looked_at": looked_at, "waste": asdict(found), "ungoverned": around})
        return
    screen = console()
    if not looked_at:
        screen.print(f"No traces since {since}. `handrail demo` makes some; `--since 90d` goes further back.")
        return
    _print_waste(screen, found, looked_at)
    _print_around(screen, around)


def _costs(
    conn: Connection, by: By, tenant: str | None, agent: str | None, between: tuple[datetime, datetime], limit: int
) -> _Costs:
    since, until = between
    rows = spend_by(conn, key=by, tenant=tenant, since=since, until=until, agent=agent, limit=limit)
    costs = list(trace_costs(conn, tenant=tenant, since=since, until=until, agent=agent))
    few = dearest(each.cost for each in costs)
    dear, rest = (load_each(conn, spread(some, SAMPLE)) for some in (costs[: few.count], costs[few.count :]))
    return _Costs(rows, few, costs[:_DEAREST], (len(dear), len(rest)), differences(dear, rest))


def _print_rows(screen: Console, by: By, rows: Sequence[SpendRow]) -> None:
    numbers = ("requests", "tokens in", "from cache", "tokens out", "cost", "around ceilings")
    shown = table(by, *numbers, right=numbers)
    for row in rows:
        key = row.key[:12] if by == "fingerprint" else row.key
        shown.add_row(
            excerpt(f"{row.tenant}/{key}" if row.tenant is not None else key or f"(no {by})", 60),
            f"{row.requests:,}",
            f"{row.input_tokens:,}",
            f"{row.cache_read_tokens:,}",
            f"{row.output_tokens:,}",
            show_usd(row.cost),
            show_usd(row.ungoverned) if row.ungoverned else "",
        )
    screen.print(shown)


def _print_few(screen: Console, found: _Costs) -> None:
    few = found.few
    if not few.total:
        screen.print("\nNone of this cost anything.")
        return
    of = "the only trace makes" if few.of == 1 else f"{few.count:,} of {few.of:,} traces ({_share(few.share)}) make"
    whole = f"{_share(few.cost_share)} of the cost ({show_usd(few.cost)} of {show_usd(few.total)})"
    screen.print(f"\n[bold]{of[0].upper()}{of[1:]} {whole}.[/]")
    for each in found.dear:
        screen.print(f"  {show_usd(each.cost)}  `handrail traces show {each.trace_id}`", soft_wrap=True)
    dear, rest = found.compared
    if not rest:
        return
    screen.print(f"\n[bold]What is different about them[/] [dim]({dear} of them beside {rest} of the rest)[/]")
    for difference in found.differences:
        screen.print(f"- {excerpt(str(difference), 400)}", soft_wrap=True)
    if not found.differences:
        screen.print("Nothing that would explain it: no step, model, tenant, user, prompt or number of tokens.")


def _print_waste(screen: Console, found: Waste, looked_at: int) -> None:
    traces = "the latest trace" if looked_at == 1 else f"the latest {looked_at} traces"
    if not found.items:
        screen.print(f"Nothing led nowhere in {traces}.")
        return
    numbers = ("count", "cost", "time")
    shown = table("led nowhere", "step", *numbers, right=numbers)
    for item in found.items:
        shown.add_row(
            item.reason, excerpt(item.step, 60), f"{item.count:,}", show_usd(item.cost), format_duration(item.time_ns)
        )
    screen.print(shown)
    screen.print(
        f"{show_usd(found.cost)} of {show_usd(found.total_cost)} and {format_duration(found.time_ns)} of "
        f"{format_duration(found.total_ns)} of machine time led nowhere, in {traces}."
    )


def _print_around(screen: Console, around: Sequence[Ungoverned]) -> None:
    if not around:
        screen.print("No money was spent around the ceilings.")
        return
    screen.print("\n[bold yellow]Spent around every ceiling[/] [dim](nothing was held before these requests)[/]")
    numbers = ("requests", "cost")
    shown = table("tenant", "agent", "model", *numbers, right=numbers)
    for each in around:
        shown.add_row(
            excerpt(each.tenant, 40),
            excerpt(each.agent, 40),
            excerpt(each.model, 60),
            f"{each.requests:,}",
            show_usd(each.cost),
        )
    screen.print(shown)
    screen.print("[dim]`handrail.govern(agent, ...)` puts an agent's requests under the ceilings.[/]")


def _share(share: Any) -> str:
    percent = 100 * float(share)
    return f"{percent:.0f}%" if percent >= 1 else f"{percent:.1f}%"


def _document(found: _Costs) -> dict[str, Any]:
    few = found.few
    return {
        "rows": found.rows,
        "few": {**asdict(few), "share": float(few.share), "cost_share": float(few.cost_share)},
        "dearest": found.dear,
        "compared": {"dear": found.compared[0], "rest": found.compared[1]},
        "differences": [
            {
                "says": str(each),
                "aspect": each.aspect,
                "name": each.name,
                "dear": float(each.dear),
                "rest": float(each.rest),
                "explains": float(each.explains),
            }
            for each in found.differences
        ],
    }
