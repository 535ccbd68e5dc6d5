"""`handrail traces slow`: how long each step takes, where the time goes, and what could run side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlalchemy import Connection

from handrail.cli.output import AsJson, console, excerpt, print_json, table
from handrail.cli.runtime import opened
from handrail.cli.time_ranges import Since, load_each, moment
from handrail.kernel.text import format_duration
from handrail.traces.analysis.critical_path import StepShare, critical_path, shares
from handrail.traces.analysis.parallelism import Finding, what_if
from handrail.traces.model import Span
from handrail.traces.store.queries import StepLatency, step_latencies, top_traces
from handrail.traces.store.spans import load_payload

SLOWEST = 10
"""Traces that are searched for work that could run side by side: the slowest of those gone through."""
_SHOWN = 5


@dataclass(frozen=True)
class _Seen:
    """A finding, in the trace that it would save most, and how many of the slowest traces it is true of."""

    finding: Finding
    trace_id: str
    traces: int


@dataclass(frozen=True)
class _Answer:
    steps: Sequence[StepLatency]
    shares: Sequence[StepShare]
    looked_at: int
    searched: int
    seen: Sequence[_Seen]


def slow(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    since: Since = "7d",
    traces: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the latest traces to go through.")] = 200,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many steps.")] = 20,
    as_json: AsJson = False,
) -> None:
    """How long each step takes, its share of what was waited for, and what could run side by side.

    Percentiles are over all spans of the time asked for. Own times and shares are over the latest traces, and the
    slowest of those are searched for work that ran one after the other and need not. Example: `handrail traces slow`
    """
    with opened() as runtime:
        now = runtime.clock.now()
        began = moment(since, now)
        answer = runtime.database.read_now(lambda conn: _answer(conn, tenant, agent, began, now, traces))
    if as_json:
        print_json(_document(answer))
        return
    screen = console()
    if not answer.steps:
        screen.print(f"No spans since {since}. `handrail demo` makes some; `--since 90d` goes further back.")
        return
    _print_steps(screen, answer, limit)
    _print_people(screen, answer)
    _print_findings(screen, answer)


def _answer(
    conn: Connection, tenant: str | None, agent: str | None, since: datetime, until: datetime, traces: int
) -> _Answer:
    steps = step_latencies(conn, tenant=tenant, since=since, until=until, agent=agent)
    latest = top_traces(conn, tenant=tenant, since=since, until=until, agent=agent, limit=traces)
    loaded = load_each(conn, latest)
    slowest = sorted(loaded, key=_machine_ns, reverse=True)[:SLOWEST]
    return _Answer(steps, shares(loaded), len(loaded), len(slowest), _seen(conn, slowest))


def _machine_ns(spans: Sequence[Span]) -> int:
    return sum(piece.duration_ns for piece in critical_path(spans) if piece.span.kind != "wait")


def _seen(conn: Connection, traces: Sequence[Sequence[Span]]) -> list[_Seen]:
    """The findings of these traces, one for each kind, what saves most first."""
    found: dict[tuple[str, ...], list[tuple[Finding, str]]] = {}
    for spans in traces:
        for finding in what_if(spans, _payloads(conn, spans)):
            names = dict.fromkeys(span.name for span in finding.spans)
            kind = (finding.certainty, finding.inside.name, *names)
            found.setdefault(kind, []).append((finding, spans[0].trace_id))
    seen = [_Seen(*max(each, key=lambda pair: pair[0].saved_ns), len(each)) for each in found.values()]
    return sorted(seen, key=lambda each: (-each.finding.saved_ns, each.trace_id))


def _payloads(conn: Connection, spans: Sequence[Span]) -> dict[str, Mapping[str, Any]]:
    said = {span.span_id: load_payload(conn, span.trace_id, span.span_id) for span in spans}
    return {span_id: payload for span_id, payload in said.items() if payload is not None}


def _print_steps(screen: Console, answer: _Answer, limit: int) -> None:
    parts = {(each.kind, each.name): each for each in answer.shares}
    numbers = ("count", "errors", "p50", "p95", "p99", "itself", "waited for")
    shown = table("step", *numbers, right=numbers)
    machine = [step for step in answer.steps if step.kind != "wait"]
    for step in machine[:limit]:
        part = parts.get((step.kind, step.name))
        share = "" if part is None else f"{100 * part.share:.0f}%"
        shown.add_row(
            excerpt(step.name, 60),
            f"{step.count:,}",
            f"{step.errors:,}",
            *(format_duration(ns) for ns in (step.p50_ns, step.p95_ns, step.p99_ns)),
            "" if part is None else format_duration(part.self_ns // part.count),
            f"[bold red]{share}[/]" if part is not None and part.share >= 0.2 else share,
        )
    screen.print(shown)
    if len(machine) > limit:
        screen.print(f"[dim]{len(machine) - limit} more: --limit {len(machine)}[/]")
    traces = "trace" if answer.looked_at == 1 else f"{answer.looked_at} traces"
    screen.print(f"[dim]Itself, and the share of what was waited for: of the latest {traces}.[/]")


def _print_people(screen: Console, answer: _Answer) -> None:
    for step in answer.steps:
        if step.kind == "wait":
            times = "once" if step.count == 1 else f"{step.count:,} times"
            screen.print(
                f"People's time, apart from this: {excerpt(step.name, 60)} {times}, "
                f"p50 {format_duration(step.p50_ns)}, p95 {format_duration(step.p95_ns)}"
            )


def _print_findings(screen: Console, answer: _Answer) -> None:
    searched = "the trace" if answer.searched == 1 else f"the {answer.searched} slowest of them"
    screen.print(f"\n[bold]What could run side by side[/] [dim](in {searched})[/]")
    if not answer.seen:
        screen.print("Nothing was found that ran one after the other without needing to.")
    for each in answer.seen[:_SHOWN]:
        colour = "green" if each.finding.certainty == "proven" else "yellow"
        often = f", and so in {each.traces} of them" if each.traces > 1 else ""
        screen.print(f"[{colour}]\u25cf[/] {excerpt(str(each.finding), 2_000)}", soft_wrap=True)
        screen.print(f"  [dim]`handrail traces show {each.trace_id}`{often}[/]", soft_wrap=True)
    if answer.seen:
        screen.print("[dim]`await handrail.parallel(...)` runs them side by side. What they save does not add up.[/]")


def _document(answer: _Answer) -> dict[str, Any]:
    parts = {(each.kind, each.name): each for each in answer.shares}
    return {
        "looked_at": answer.looked_at,
        "searched": answer.searched,
        "steps": [
            {
                **asdict(step),
                **{
                    name: getattr(parts.get((step.kind, step.name)), name, None)
                    for name in ("self_ns", "critical_ns", "share")
                },
            }
            for step in answer.steps
        ],
        "findings": [
            {
                "says": str(each.finding),
                "certainty": each.finding.certainty,
                "because": each.finding.because,
                "spans": [{"span_id": span.span_id, "name": span.name} for span in each.finding.spans],
                "inside": each.finding.inside.name,
                "ahead_of_model": each.finding.ahead_of_model,
                "now_ns": each.finding.now_ns,
                "side_by_side_ns": each.finding.side_by_side_ns,
                "trace_now_ns": each.finding.trace_now_ns,
                "trace_then_ns": each.finding.trace_then_ns,
                "trace_id": each.trace_id,
                "traces": each.traces,
            }
            for each in answer.seen
        ],
    }
