"""`handrail traces`: lists traces and shows one; the reports are in `costs` and `slow`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from handrail.cli.options import AsJson, Limit, Tenant
from handrail.cli.output import Timing, add_cells, console, excerpt, format_time, print_json, render_span_tree, table
from handrail.cli.runtime import open_runtime
from handrail.cli.time_ranges import Since, parse_since
from handrail.kernel.clock import from_unix_ns
from handrail.kernel.errors import BadInput
from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration
from handrail.traces.analysis.critical_path import PathSegment, critical_path, self_times
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.spans import load_payloads, load_trace
from handrail.traces.store.summaries import TraceSummary
from handrail.traces.store.trace_queries import TraceCursor, TraceOrder, cursor_of, missing_spans, top_traces

from . import costs, slow

app = typer.Typer(help="What runs did, step by step; where their time and money went.", no_args_is_help=True)
app.command("slow")(slow.slow)
app.command("cost")(costs.cost)
app.command("waste")(costs.waste)


@app.command("list")
def list_(
    tenant: Tenant = None,
    user: Annotated[str | None, typer.Option(help="Only this user.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only the version of the agent with this hash.")] = None,
    find: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A part of the name, or the start of the id.")
    ] = None,
    since: Since | None = None,
    sort: Annotated[TraceOrder, typer.Option(help="List the traces with the most of this first.")] = "started",
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Continue a list after this cursor.")] = None,
    as_json: AsJson = False,
) -> None:
    """List traces: the newest first, or the most expensive, the longest, or those with the most errors.

    Examples: `handrail traces list --limit 5`, `handrail traces list --sort cost --since 7d --tenant acme`
    """
    with open_runtime() as runtime:
        started_after = None if since is None else parse_since(since, runtime.clock.now())
        traces = runtime.database.read_now(
            top_traces(
                tenant=tenant,
                since=started_after,
                order=sort,
                agent=agent,
                user=user,
                fingerprint=fingerprint,
                text=find,
                limit=limit,
                after=None if after is None else _parse_cursor(after),
            )
        )
    if as_json:
        print_json(traces)
        return
    if not traces:
        filters = (tenant, user, agent, fingerprint, find, since, after)
        console().print(
            "No traces match. Drop a filter, or run `handrail traces list` to see all."
            if any(value is not None for value in filters)
            else "No traces yet. Every governed run records one; `handrail demo` makes some."
        )
        return
    _print_list(traces)
    if len(traces) == limit:
        cursor = ":".join(map(str, cursor_of(traces[-1], sort)))
        console().print(f"[dim]More: --sort {sort} --after {excerpt(cursor, 400)}[/]", soft_wrap=True)


@app.command("show")
def show(
    trace_id: Annotated[str, typer.Argument(help="A trace id from `handrail traces list`.")],
    tenant: Tenant = None,
    content: Annotated[bool, typer.Option("--content", help="Also print prompts, responses and arguments.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one trace as a tree with its critical path marked. Example: `handrail traces show TRACE --content`"""
    with open_runtime() as runtime:
        summary, spans = runtime.database.read_now(load_trace(trace_id, tenant))
        missing = runtime.database.read_now(missing_spans(trace_id, tenant))
        payloads = runtime.database.read_now(load_payloads(trace_id, tenant)) if content else {}
    path, self_ns = critical_path(spans), self_times(spans)
    if as_json:
        document = {
            "trace": summary,
            "spans": spans,
            "missing": missing,
            "self_ns": self_ns,
            "critical_path": _path_document(path),
        }
        print_json({**document, **({"content": payloads} if content else {})})
        return
    critical: Counter[str] = Counter()
    for segment in path:
        critical[segment.span.span_id] += segment.duration_ns
    timing = Timing(critical=critical, own=self_ns)
    console().print(render_span_tree(f"trace {summary.trace_id}  {format_usd(summary.cost)}", span_tree(spans), timing))
    _print_notes(path, missing)
    _print_content(spans, payloads)


def _print_list(traces: Sequence[TraceSummary]) -> None:
    numbers = ("duration", "spans", "errors", "cost")
    hidden = ("started", "user", "spans", "errors")
    rows = table("trace", "started", "agent", "user", *numbers, right=numbers, wide_only=hidden)
    for trace in traces:
        add_cells(
            rows,
            {
                "trace": trace.trace_id,
                "started": format_time(from_unix_ns(trace.start_ns)),
                "agent": excerpt(trace.agent or trace.name, 30),
                "user": excerpt(f"{trace.tenant}/{trace.user}", 40),
                "duration": format_duration(trace.duration_ns),
                "spans": str(trace.spans),
                "errors": str(trace.errors),
                "cost": format_usd(trace.cost),
            },
        )
    console().print(rows)


def _print_notes(path: Sequence[PathSegment], missing: int) -> None:
    people = sum(segment.duration_ns for segment in path if segment.span.kind == "wait")
    machine = sum(segment.duration_ns for segment in path) - people
    waited = f", and {format_duration(people)} waiting for people" if people else ""
    console().print(f"[red]\u25cf[/] critical path: {format_duration(machine)} of machine time{waited}")
    if missing:
        parents = "1 parent span is" if missing == 1 else f"{missing} parent spans are"
        console().print(f"[yellow]This trace is incomplete: {parents} missing.[/]")


def _print_content(spans: Sequence[Span], payloads: Mapping[str, Mapping[str, Any]]) -> None:
    for span in spans:
        if payloads.get(span.span_id):
            console().print(f"\n[bold]{excerpt(span.name, 80)}[/]")
            print_json(payloads[span.span_id])


def _path_document(path: Sequence[PathSegment]) -> list[dict[str, Any]]:
    return [
        {"span_id": segment.span.span_id, "start_ns": segment.start_ns, "end_ns": segment.end_ns} for segment in path
    ]


def _parse_cursor(text: str) -> TraceCursor:
    try:
        value, start_ns, trace_id, tenant = text.split(":", 3)
        return int(value), int(start_ns), trace_id, tenant
    except ValueError:
        raise BadInput(f"--after {text!r} is not a cursor; copy it from the end of the previous page") from None
