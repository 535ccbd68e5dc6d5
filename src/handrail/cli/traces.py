"""`handrail traces`: what runs did, step by step."""

from datetime import timedelta
from typing import Annotated

import typer

from handrail.kernel import from_unix_ns, show_usd
from handrail.traces import list_traces, load_payload, load_trace, span_tree

from .screen import AsJson, console, excerpt, print_json, show_duration, show_time, span_trees, table
from .session import opened

app = typer.Typer(help="What runs did, step by step.", no_args_is_help=True)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest traces. Example: `handrail traces list --limit 5`"""
    with opened() as runtime:
        found = runtime.database.read_now(lambda conn: list_traces(conn, tenant, limit, None))
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No traces yet. `handrail demo` makes some, and so does every governed run.")
        return
    shown = table("trace", "began", "agent", "tenant", "took", "spans", "errors", "cost", right=("spans", "errors"))
    for each in found:
        shown.add_row(
            each.trace_id,
            show_time(from_unix_ns(each.start_ns)),
            excerpt(each.agent, 30),
            excerpt(each.tenant, 20),
            show_duration(timedelta(microseconds=(each.end_ns - each.start_ns) // 1_000)),
            str(each.spans),
            str(each.errors),
            show_usd(each.cost),
        )
    console().print(shown)


@app.command("show")
def show(
    trace_id: Annotated[str, typer.Argument(help="A trace id from `handrail traces list`.")],
    content: Annotated[bool, typer.Option("--content", help="Also what was said in each span.")] = False,
    as_json: AsJson = False,
) -> None:
    """One trace as a tree. Example: `handrail traces show TRACE --content`"""
    with opened() as runtime:
        summary, spans = runtime.database.read_now(lambda conn: load_trace(conn, trace_id, None))
        kept = spans if content else []
        said = runtime.database.read_now(
            lambda conn: {span.span_id: load_payload(conn, span.trace_id, span.span_id) for span in kept}
        )
    if as_json:
        print_json({"trace": summary, "spans": spans, **({"content": said} if content else {})})
        return
    console().print(span_trees(f"trace {summary.trace_id}  {show_usd(summary.cost)}", span_tree(spans)))
    for span in spans:
        if said.get(span.span_id):
            console().print(f"\n[bold]{excerpt(span.name, 80)}[/]")
            print_json(said[span.span_id])
