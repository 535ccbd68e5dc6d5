"""`handrail traces slow`: how long each step takes, where the time goes, and what could run in parallel."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlalchemy import Connection

from handrail.cli.options import AsJson, Tenant
from handrail.cli.output import console, excerpt, print_json, table
from handrail.cli.runtime import open_runtime
from handrail.cli.time_ranges import Since, parse_since
from handrail.kernel.db.operation import operation
from handrail.kernel.text import format_duration
from handrail.traces.analysis.critical_path import StepShare, critical_path, step_shares
from handrail.traces.analysis.parallelism import ParallelismOpportunity, find_parallelism
from handrail.traces.model import Span
from handrail.traces.reports import LATEST_TRACES, SLOWEST_TRACES, load_latest_traces
from handrail.traces.store.rollup_queries import StepLatency, step_latencies
from handrail.traces.store.spans import load_payloads

_SHOWN_OPPORTUNITIES = 5


@dataclass(frozen=True)
class _Recurring:
    """An opportunity in the trace where it saves most, and the number of the slowest traces that have it."""

    opportunity: ParallelismOpportunity
    trace_id: str
    traces: int


@dataclass(frozen=True)
class _LatencyReport:
    steps: Sequence[StepLatency]
    shares: Sequence[StepShare]
    traces: int
    searched: int
    opportunities: Sequence[_Recurring]


def slow(
    tenant: Tenant = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    since: Since = "7d",
    traces: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many of the latest traces to analyse.")
    ] = LATEST_TRACES,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The most steps to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how long each step takes, its share of the critical path, and what could run in parallel.

    Percentiles cover all spans of the time range. Own times and shares cover the latest traces, and the slowest of
    these are searched for work that ran one after the other without need. Example: `handrail traces slow`
    """
    with open_runtime() as runtime:
        now = runtime.clock.now()
        report = runtime.database.read_now(_report(tenant, agent, parse_since(since, now), now, traces))
    if as_json:
        print_json(_document(report))
        return
    screen = console()
    if not report.steps:
        screen.print(f"No spans since {since}. `handrail demo` makes some; `--since 90d` looks further back.")
        return
    _print_steps(screen, report, limit)
    _print_waits(screen, report)
    _print_opportunities(screen, report)


@operation
def _report(
    conn: Connection, tenant: str | None, agent: str | None, since: datetime, until: datetime, limit: int
) -> _LatencyReport:
    steps = step_latencies(tenant=tenant, since=since, until=until, agent=agent)(conn)
    latest = load_latest_traces(tenant=tenant, since=since, until=until, agent=agent, limit=limit)(conn)
    slowest = sorted(latest, key=_machine_ns, reverse=True)[:SLOWEST_TRACES]
    return _LatencyReport(steps, step_shares(latest), len(latest), len(slowest), _opportunities(conn, slowest))


def _machine_ns(spans: Sequence[Span]) -> int:
    return sum(segment.duration_ns for segment in critical_path(spans) if segment.span.kind != "wait")


def _opportunities(conn: Connection, traces: Sequence[Sequence[Span]]) -> list[_Recurring]:
    """The opportunities in these traces, each once: those with the same certainty, place and steps are the same."""
    groups: dict[tuple[str, ...], list[tuple[ParallelismOpportunity, str]]] = {}
    for spans in traces:
        payloads = load_payloads(spans[0].trace_id, spans[0].tenant)(conn)
        for opportunity in find_parallelism(spans, payloads):
            names = dict.fromkeys(span.name for span in opportunity.spans)
            identity = (opportunity.certainty, opportunity.inside.name, *names)
            groups.setdefault(identity, []).append((opportunity, spans[0].trace_id))
    recurring = [_Recurring(*max(group, key=lambda pair: pair[0].saved_ns), len(group)) for group in groups.values()]
    return sorted(recurring, key=lambda row: (-row.opportunity.saved_ns, row.trace_id))


def _print_steps(screen: Console, report: _LatencyReport, limit: int) -> None:
    shares = {(step.kind, step.name): step for step in report.shares}
    numbers = ("count", "errors", "p50", "p95", "p99", "own time", "critical")
    lines = table("step", *numbers, right=numbers)
    machine = [step for step in report.steps if step.kind != "wait"]
    for step in machine[:limit]:
        share = shares.get((step.kind, step.name))
        percent = "" if share is None else f"{100 * share.share:.0f}%"
        lines.add_row(
            excerpt(step.name, 60),
            f"{step.count:,}",
            f"{step.errors:,}",
            *(format_duration(ns) for ns in (step.p50_ns, step.p95_ns, step.p99_ns)),
            "" if share is None else format_duration(share.self_ns // share.count),
            f"[bold red]{percent}[/]" if share is not None and share.share >= 0.2 else percent,
        )
    screen.print(lines)
    if len(machine) > limit:
        screen.print(f"[dim]{len(machine) - limit} more: --limit {len(machine)}[/]")
    traces = "trace" if report.traces == 1 else f"{report.traces} traces"
    screen.print(f"[dim]Own time and the share of the critical path are those of the latest {traces}.[/]")


def _print_waits(screen: Console, report: _LatencyReport) -> None:
    for step in report.steps:
        if step.kind == "wait":
            times = "once" if step.count == 1 else f"{step.count:,} times"
            screen.print(
                f"Waiting for people, not included above: {excerpt(step.name, 60)} {times}, "
                f"p50 {format_duration(step.p50_ns)}, p95 {format_duration(step.p95_ns)}"
            )


def _print_opportunities(screen: Console, report: _LatencyReport) -> None:
    searched = "the trace" if report.searched == 1 else f"the {report.searched} slowest of them"
    screen.print(f"\n[bold]What could run in parallel[/] [dim](in {searched})[/]")
    if not report.opportunities:
        screen.print("Nothing ran one after the other without need.")
        return
    for row in report.opportunities[:_SHOWN_OPPORTUNITIES]:
        colour = "green" if row.opportunity.certainty == "proven" else "yellow"
        frequency = f", and the same in {row.traces} of them" if row.traces > 1 else ""
        screen.print(f"[{colour}]\u25cf[/] {excerpt(str(row.opportunity), 2_000)}", soft_wrap=True)
        screen.print(f"  [dim]`handrail traces show {row.trace_id}`{frequency}[/]", soft_wrap=True)
    screen.print("[dim]`await handrail.parallel(...)` runs work in parallel. Savings do not add up.[/]")


def _document(report: _LatencyReport) -> dict[str, Any]:
    shares = {(step.kind, step.name): step for step in report.shares}
    return {
        "traces": report.traces,
        "searched": report.searched,
        "steps": [
            {
                **asdict(step),
                **{
                    name: getattr(shares.get((step.kind, step.name)), name, None)
                    for name in ("self_ns", "critical_ns", "share")
                },
            }
            for step in report.steps
        ],
        "opportunities": [
            {
                "description": str(row.opportunity),
                "certainty": row.opportunity.certainty,
                "reasons": row.opportunity.reasons,
                "spans": [{"span_id": span.span_id, "name": span.name} for span in row.opportunity.spans],
                "inside": row.opportunity.inside.name,
                "ahead_of_model": row.opportunity.ahead_of_model,
                "sequential_ns": row.opportunity.sequential_ns,
                "parallel_ns": row.opportunity.parallel_ns,
                "trace_now_ns": row.opportunity.trace_now_ns,
                "trace_then_ns": row.opportunity.trace_then_ns,
                "trace_id": row.trace_id,
                "traces": row.traces,
            }
            for row in report.opportunities
        ],
    }
