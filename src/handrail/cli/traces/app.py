"""`handrail traces`: what runs did, step by step; where their time and money went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from handrail.cli.output import AsJson, Timing, console, excerpt, print_json, show_time, span_trees, table
from handrail.cli.runtime import opened
from handrail.cli.time_ranges import Since, moment
from handrail.kernel.clock import from_unix_ns
from handrail.kernel.errors import BadInput
from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration
from handrail.traces.analysis.critical_path import Segment, critical_path, self_time
from handrail.traces.analysis.tree import span_tree
from handrail.traces.model import Span
from handrail.traces.store.queries import Order, Place, missing_spans, place_of, top_traces
from handrail.traces.store.spans import load_payload, load_trace
from handrail.traces.store.summaries import TraceSummary

from . import costs, slow

app = typer.Typer(help="What runs did, step by step; where their time and money went.", no_args_is_help=True)
app.command("slow")(slow.slow)
app.command("cost")(costs.cost)
app.command("waste")(costs.waste)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only of the agent as it was with this hash.")] = None,
    find: Annotated[str | None, typer.Option(metavar="TEXT", help="In the trace's name, or how its id begins.")] = None,
    since: Since | None = None,
    sort: Annotated[Order, typer.Option(help="What the first ones have most of.")] = "started",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="PLACE", help="The page after this place.")] = None,
    as_json: AsJson = False,
) -> None:
    """Traces: the newest, or the dearest, longest or those with most errors first.

    Examples: `handrail traces list --limit 5`, `handrail traces list --sort cost --since 7d --tenant acme`
    """
    with opened() as runtime:
        began = None if since is None else moment(since, runtime.clock.now())
        found = runtime.database.read_now(
            lambda conn: top_traces(
                conn,
                tenant=tenant,
                since=began,
                order=sort,
                agent=agent,
                user=user,
                fingerprint=fingerprint,
                text=find,
                limit=limit,
                after=None if after is None else _place(after),
            )
        )
    if as_json:
        print_json(found)
        return
    if not found:
        asked = any(each is not None for each in (tenant, user, agent, fingerprint, find, since, after))
        console().print(
            "No traces are like that; ask for less, or `handrail traces list` for all."
            if asked
            else "No traces yet. `handrail demo` makes some, and so does every governed run."
        )
        return
    _print_list(found)
    if len(found) == limit:
        place = ":".join(map(str, place_of(found[-1], sort)))
        console().print(f"[dim]More: --sort {sort} --after {excerpt(place, 400)}[/]", soft_wrap=True)


@app.command("show")
def show(
    trace_id: Annotated[str, typer.Argument(help="A trace id from `handrail traces list`.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's spans of it.")] = None,
    content: Annotated[bool, typer.Option("--content", help="Also what was said in each span.")] = False,
    as_json: AsJson = False,
) -> None:
    """One trace as a tree, what it waited for marked. Example: `handrail traces show TRACE --content`"""
    with opened() as runtime:
        summary, spans = runtime.database.read_now(lambda conn: load_trace(conn, trace_id, tenant))
        missing = runtime.database.read_now(lambda conn: missing_spans(conn, trace_id, tenant))
        kept = spans if content else []
        said = runtime.database.read_now(
            lambda conn: {span.span_id: load_payload(conn, span.trace_id, span.span_id) for span in kept}
        )
    path, own = critical_path(spans), self_time(spans)
    if as_json:
        shown = {"trace": summary, "spans": spans, "missing": missing, "self_ns": own, "critical_path": _pieces(path)}
        print_json({**shown, **({"content": said} if content else {})})
        return
    critical: Counter[str] = Counter()
    for piece in path:
        critical[piece.span.span_id] += piece.duration_ns
    timing = Timing(critical=critical, own=own)
    console().print(span_trees(f"trace {summary.trace_id}  {show_usd(summary.cost)}", span_tree(spans), timing))
    _print_notes(path, missing)
    _print_content(spans, said)


def _print_list(found: Sequence[TraceSummary]) -> None:
    numbers = ("took", "spans", "errors", "cost")
    shown = table("trace", "began", "agent", "user", *numbers, right=numbers)
    for each in found:
        shown.add_row(
            each.trace_id,
            show_time(from_unix_ns(each.start_ns)),
            excerpt(each.agent or each.name, 30),
            excerpt(f"{each.tenant}/{each.user}", 40),
            format_duration(each.duration_ns),
            str(each.spans),
            str(each.errors),
            show_usd(each.cost),
        )
    console().print(shown)


def _print_notes(path: Sequence[Segment], missing: int) -> None:
    """What the tree does not say: people's time apart from the machine's, and what is not there."""
    people = sum(piece.duration_ns for piece in path if piece.span.kind == "wait")
    machine = sum(piece.duration_ns for piece in path) - people
    waited = f", {format_duration(people)} waiting for people" if people else ""
    console().print(f"[red]\u25cf[/] what it waited for: {format_duration(machine)} of machine time{waited}")
    if missing:
        spans = "1 span is" if missing == 1 else f"{missing} spans are"
        console().print(f"[yellow]This trace is not whole: {spans} named as parents and not here.[/]")


def _print_content(spans: Sequence[Span], said: Mapping[str, Mapping[str, Any] | None]) -> None:
    for span in spans:
        if said.get(span.span_id):
            console().print(f"\n[bold]{excerpt(span.name, 80)}[/]")
            print_json(said[span.span_id])


def _pieces(path: Sequence[Segment]) -> list[dict[str, Any]]:
    return [{"span_id": each.span.span_id, "start_ns": each.start_ns, "end_ns": each.end_ns} for each in path]


def _place(text: str) -> Place:
    try:
        value, start_ns, trace_id, tenant = text.split(":", 3)
        return int(value), int(start_ns), trace_id, tenant
    except ValueError:
        raise BadInput(f"--after {text!r} is no place in a list; take it from the end of the page before") from None
