"""What the commands print: tables and trees for people, JSON for programs."""

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from handrail.kernel.money import ZERO, show_usd
from handrail.kernel.text import format_duration, sanitize, shorten
from handrail.traces import semconv
from handrail.traces.analysis.tree import Node
from handrail.traces.model import Span

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

# What a terminal obeys and JSON does not escape by itself, and lone surrogates, which UTF-8 cannot hold.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FILE_COLUMNS = 200
_ID_COLUMNS = ("run", "trace", "eval run", "approval")

PATH_COLOURS = {"happy": "green", "fallback": "yellow", "human": "cyan", "refused": "magenta", "failed": "red"}


def console(*, stderr: bool = False) -> Console:
    """Where output for people goes; made anew so that a redirected standard output is seen."""
    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _FILE_COLUMNS
    return made


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    found = to_jsonable_python(value, bytes_mode="base64", fallback=str)
    text = json.dumps(found, indent=2, ensure_ascii=False)
    typer.echo(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers, those of ids are never broken: they get copied."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in _ID_COLUMNS)
    return made


def excerpt(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, safe to print and safe as markup."""
    return escape(shorten(sanitize(text), length))


def show_time(moment: datetime) -> str:
    """Local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_path(path: str | None) -> str:
    """A path in its colour."""
    return f"[{PATH_COLOURS[path]}]{path}[/]" if path else ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Where a trace's time went, by span id, in nanoseconds: on its critical path, and in the span itself."""

    critical: Mapping[str, int]
    own: Mapping[str, int]


def span_trees(title: str, nodes: Iterable[Node], timing: Timing | None = None) -> Tree:
    """The spans of a trace as a tree: what, how long, tokens, cost, fault; with `timing`, what the trace waited for."""
    root = Tree(title, guide_style="dim")
    waiting = deque((root, node) for node in nodes)
    while waiting:
        tree, node = waiting.popleft()
        branch = tree.add(_line(node.span, timing, orphan=node.orphan))
        waiting.extend((branch, child) for child in node.children)
    return root


def _line(span: Span, timing: Timing | None, *, orphan: bool) -> Text:
    took = format_duration(span.duration_ns)
    line = Text.assemble((sanitize(span.name), "bold"), "  ", took)
    if timing is not None:
        line = Text.assemble(("● " if timing.critical.get(span.span_id) else "  ", "red"), line)
        own = timing.own.get(span.span_id, 0)
        if own != span.duration_ns:
            line.append(f", {format_duration(own)} itself", "dim")
    if span.usage.input or span.usage.output:
        line.append(f"  {span.usage.input:,} in, {span.usage.output:,} out", "dim")
    if span.cost != ZERO or span.held:
        line.append(f"  {show_usd(span.cost)}" + (f" of {show_usd(span.held)} held" if span.held else ""))
    if span.attempt > 1:
        line.append("  stricter retry", "yellow")
    if approval := span.attributes.get(semconv.APPROVAL):
        decided_by = span.attributes.get(semconv.DECIDED_BY)
        line.append(sanitize(f"  {approval}" + (f" by {decided_by}" if decided_by else "")), "cyan")
    for name in ("handrail.refusal", "handrail.reason", "handrail.route.reason"):
        if said := span.attributes.get(name):
            line.append(f"  {sanitize(str(said))}", "dim")
    if span.error_type:
        line.append(f"  {sanitize(span.error_type)}", "red")
    if orphan:
        line.append("  (its parent is missing)", "yellow")
    return line
