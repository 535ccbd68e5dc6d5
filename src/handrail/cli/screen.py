"""What the commands print: tables and trees for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from handrail.kernel import ZERO, show_usd
from handrail.traces import Node, Span

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

PATH_COLOURS = {"happy": "green", "fallback": "yellow", "human": "cyan", "refused": "magenta", "failed": "red"}


def console() -> Console:
    """Where output for people goes; made anew so that a redirected standard output is seen."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    found = to_jsonable_python(value, bytes_mode="base64", fallback=str)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def excerpt(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, safe as markup."""
    line = " ".join(text.split())
    return escape(line if len(line) <= length else line[: length - 1] + "…")


def show_duration(duration: timedelta | None) -> str:
    """Seconds with a digit or two, or milliseconds below one second."""
    if duration is None:
        return ""
    seconds = duration.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def show_time(moment: datetime) -> str:
    """Local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_path(path: str | None) -> str:
    """A path in its colour."""
    return f"[{PATH_COLOURS[path]}]{path}[/]" if path else ""


def span_trees(title: str, nodes: Iterable[Node]) -> Tree:
    """The spans of a trace as a tree: what, how long, tokens, cost, fault."""
    root = Tree(title, guide_style="dim")
    for node in nodes:
        _grow(root, node)
    return root


def _grow(tree: Tree, node: Node) -> None:
    branch = tree.add(_line(node.span, orphan=node.orphan))
    for child in node.children:
        _grow(branch, child)


def _line(span: Span, *, orphan: bool) -> Text:
    took = show_duration(timedelta(microseconds=span.duration_ns // 1_000))
    line = Text.assemble((span.name, "bold"), "  ", took)
    if span.usage.input or span.usage.output:
        line.append(f"  {span.usage.input:,} in, {span.usage.output:,} out", "dim")
    if span.cost != ZERO:
        line.append(f"  {show_usd(span.cost)}")
    if span.attempt > 1:
        line.append("  retry", "yellow")
    if span.attributes.get("handrail.approval"):
        line.append("  waits for approval", "cyan")
    if span.error_type:
        line.append(f"  {span.error_type}", "red")
    if orphan:
        line.append("  (its parent is missing)", "yellow")
    return line
