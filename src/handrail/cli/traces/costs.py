"""`handrail traces cost` and `waste`: where the money goes, and how much of it is wasted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Annotated, Any

import typer
from rich.console import Console

from handrail.cli.options import AsJson, Limit, Tenant
from handrail.cli.output import console, excerpt, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.cli.time_ranges import Since, parse_since
from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration
from handrail.traces.analysis.cost_drivers import CostDriver
from handrail.traces.analysis.waste import WasteReport, find_waste
from handrail.traces.reports import LATEST_TRACES, CostSample, load_cost_sample, load_latest_traces
from handrail.traces.store.rollup_queries import SpendKey, SpendRow, UngovernedSpend, spend_by, ungoverned_spend

_SHOWN_TRACES = 5


@dataclass(frozen=True)
class _CostReport:
    rows: Sequence[SpendRow]
    sample: CostSample
    drivers: Sequence[CostDriver]


def cost(
    by: Annotated[SpendKey, typer.Option(help="What to group the spend by.")] = "user",
    tenant: Tenant = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    since: Since = "30d",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show where the money goes, how few traces make up 80% of it, and how they differ from the rest.

    Examples: `handrail traces cost`, `handrail traces cost --by model --since 7d --tenant acme`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        start = parse_since(since, now)
        load_rows = spend_by(key=by, tenant=tenant, since=start, until=now, agent=agent, limit=limit)
        load_sample = load_cost_sample(tenant=tenant, since=start, until=now, agent=agent)
        rows, sample = runtime.database.read_now(lambda conn: (load_rows(conn), load_sample(conn)))
    report = _CostReport(rows, sample, sample.drivers())
    if as_json:
        print_json(_document(report))
        return
    screen = console()
    if not rows:
        screen.print(f"No model requests since {since}. `handrail demo` makes some; `--since 90d` looks further back.")
        return
    _print_rows(screen, by, rows)
    _print_concentration(screen, report)


def waste(
    tenant: Tenant = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    since: Since = "30d",
    traces: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many of the latest traces to search.")
    ] = LATEST_TRACES,
    as_json: AsJson = False,
) -> None:
    """Show the money and time that led to no outcome, and the spend that no ceiling covers.

    Example: `handrail traces waste --since 7d`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        start = parse_since(since, now)
        load_latest = load_latest_traces(tenant=tenant, since=start, until=now, agent=agent, limit=traces)
        load_spend = ungoverned_spend(tenant=tenant, since=start, until=now)
        spans, spend = runtime.database.read_now(lambda conn: (load_latest(conn), load_spend(conn)))
    report = find_waste(spans)
    ungoverned = [row for row in spend if agent in (None, row.agent)]
    if as_json:
        print_json({"traces": len(spans), "waste": asdict(report), "ungoverned": ungoverned})
        return
    screen = console()
    if not spans:
        screen.print(f"No traces since {since}. `handrail demo` makes some; `--since 90d` looks further back.")
        return
    _print_waste(screen, report, len(spans))
    _print_ungoverned(screen, ungoverned)


def _print_rows(screen: Console, by: SpendKey, rows: Sequence[SpendRow]) -> None:
    numbers = ("requests", "tokens in", "from cache", "tokens out", "cost", "ungoverned")
    lines = table(by, *numbers, right=numbers)
    for row in rows:
        key = row.key[:12] if by == "fingerprint" else row.key
        lines.add_row(
            excerpt(f"{row.tenant}/{key}" if row.tenant is not None else key or f"(no {by})", 60),
            f"{row.requests:,}",
            f"{row.input_tokens:,}",
            f"{row.cache_read_tokens:,}",
            f"{row.output_tokens:,}",
            format_usd(row.cost),
            format_usd(row.ungoverned) if row.ungoverned else "",
        )
    screen.print(lines)


def _print_concentration(screen: Console, report: _CostReport) -> None:
    sample, concentration = report.sample, report.sample.concentration
    if not concentration.total_cost:
        screen.print("\nNone of these traces cost anything.")
        return
    subject = (
        "The only trace makes up"
        if concentration.total_traces == 1
        else f"{concentration.traces:,} of {concentration.total_traces:,} traces ({_percent(concentration.share)}) "
        f"make up"
    )
    screen.print(
        f"\n[bold]{subject} {_percent(concentration.cost_share)} of the cost ({format_usd(concentration.cost)} of "
        f"{format_usd(concentration.total_cost)}).[/]"
    )
    for trace in sample.costs[:_SHOWN_TRACES]:
        screen.print(f"  {format_usd(trace.cost)}  `handrail traces show {trace.trace_id}`", soft_wrap=True)
    if not sample.rest:
        return
    screen.print(
        f"\n[bold]How they differ from the rest[/] [dim](comparing {len(sample.expensive)} of them with "
        f"{len(sample.rest)} others)[/]"
    )
    for driver in report.drivers:
        screen.print(f"- {excerpt(str(driver), 400)}", soft_wrap=True)
    if not report.drivers:
        screen.print("Nothing that would explain the cost: no step, model, tenant, user, prompt or number of tokens.")


def _print_waste(screen: Console, report: WasteReport, traces: int) -> None:
    scope = "the latest trace" if traces == 1 else f"the latest {traces} traces"
    if not report.items:
        screen.print(f"No waste in {scope}.")
        return
    numbers = ("count", "cost", "time")
    lines = table("reason", "step", *numbers, right=numbers)
    for item in report.items:
        lines.add_row(
            item.reason, excerpt(item.step, 60), f"{item.count:,}", format_usd(item.cost), format_duration(item.time_ns)
        )
    screen.print(lines)
    screen.print(
        f"Wasted: {format_usd(report.cost)} of {format_usd(report.total_cost)} and {format_duration(report.time_ns)} "
        f"of {format_duration(report.total_ns)} of machine time, in {scope}."
    )


def _print_ungoverned(screen: Console, rows: Sequence[UngovernedSpend]) -> None:
    if not rows:
        screen.print("No ungoverned spend.")
        return
    screen.print("\n[bold yellow]Ungoverned spend[/] [dim](no ceiling covers these requests)[/]")
    numbers = ("requests", "cost")
    lines = table("tenant", "agent", "model", *numbers, right=numbers)
    for row in rows:
        lines.add_row(
            excerpt(row.tenant, 40),
            excerpt(row.agent, 40),
            excerpt(row.model, 60),
            f"{row.requests:,}",
            format_usd(row.cost),
        )
    screen.print(lines)
    screen.print("[dim]`handrail.govern(agent, ...)` applies the ceilings to an agent's requests.[/]")


def _percent(share: Fraction) -> str:
    percent = 100 * float(share)
    return f"{percent:.0f}%" if percent >= 1 else f"{percent:.1f}%"


def _document(report: _CostReport) -> dict[str, Any]:
    sample, concentration = report.sample, report.sample.concentration
    return {
        "rows": report.rows,
        "concentration": {
            **asdict(concentration),
            "share": float(concentration.share),
            "cost_share": float(concentration.cost_share),
        },
        "most_expensive": sample.costs[:_SHOWN_TRACES],
        "compared": {"expensive": len(sample.expensive), "rest": len(sample.rest)},
        "drivers": [
            {
                "description": str(driver),
                "aspect": driver.aspect,
                "name": driver.name,
                "expensive": float(driver.expensive),
                "rest": float(driver.rest),
                "explains": float(driver.explains),
            }
            for driver in report.drivers
        ],
    }
