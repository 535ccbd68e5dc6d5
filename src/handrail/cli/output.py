"""What the commands print: tables and trees for people, JSON for programs."""

import json
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from handrail.kernel.money import ZERO, format_usd
from handrail.kernel.text import format_duration, sanitize, shorten
from handrail.traces import semconv
from handrail.traces.analysis.tree import SpanNode
from handrail.traces.model import Span
from handrail.traces.reports import cost_note

# Control characters that JSON does not escape by itself, and lone surrogates, which UTF-8 cannot encode.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FILE_COLUMNS = 200
_WIDE_COLUMNS = 120
_ID_COLUMNS = ("run", "trace", "eval run", "approval")

PATH_COLOURS = {"happy": "green", "fallback": "yellow", "human": "cyan", "refused": "magenta", "failed": "red"}


def console(*, stderr: bool = False) -> Console:
    """A console for output to people; a new one each time, so that it follows a redirected standard output.

    Args:
        stderr: Print to standard error, because standard output is for JSON.
    """
    screen = Console(stderr=stderr, highlight=False, emoji=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _FILE_COLUMNS
    return screen


def print_json(value: Any) -> None:
    """Prints one JSON document on standard output."""
    text = json.dumps(to_jsonable_python(value, bytes_mode="base64", fallback=str), indent=2, ensure_ascii=False)
    typer.echo(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def table(*columns: str, right: Sequence[str] = (), wide_only: Collection[str] = ()) -> Table:
    """An empty table. Columns of ids are never broken, because ids are copied.

    Args:
        columns: The headings.
        right: Those whose cells are numbers, aligned to the right.
        wide_only: Those that are left out on a narrow terminal; fill such a table with `add_cells`.
    """
    empty = Table(box=None, header_style="bold", pad_edge=False)
    is_narrow = bool(wide_only) and console().width < _WIDE_COLUMNS
    for column in columns:
        if is_narrow and column in wide_only:
            continue
        justify: Literal["left", "right"] = "right" if column in right else "left"
        empty.add_column(column, justify=justify, overflow="fold", no_wrap=column in _ID_COLUMNS)
    return empty


def add_cells(rows: Table, cells: Mapping[str, str]) -> None:
    """Adds a row of cells, given by heading; those without a column are left out."""
    rows.add_row(*(cells[str(column.header)] for column in rows.columns))


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one: "1 model request", "2 model requests"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def excerpt(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, safe to print and to use in markup."""
    return escape(shorten(sanitize(text), length))


def format_time(at: datetime) -> str:
    """Local time, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_path(path: str | None) -> str:
    """A path in its colour."""
    return f"[{PATH_COLOURS[path]}]{path}[/]" if path else ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How a trace spent its time, in nanoseconds by span id: on its critical path, and in the span itself."""

    critical: Mapping[str, int]
    own: Mapping[str, int]


def render_span_tree(title: str, nodes: Iterable[SpanNode], timing: Timing | None = None) -> Tree:
    """The spans of a trace as a tree, with durations, tokens, costs and faults.

    Args:
        title: The tree's first line.
        nodes: The roots, with their children.
        timing: With it, spans on the critical path are marked and show the time that they spent themselves.
    """
    root = Tree(title, guide_style="dim")
    queue = deque((root, node) for node in nodes)
    while queue:
        tree, node = queue.popleft()
        branch = tree.add(_line(node.span, timing, orphan=node.orphan))
        queue.extend((branch, child) for child in node.children)
    return root


def _line(span: Span, timing: Timing | None, *, orphan: bool) -> Text:
    line = Text.assemble((sanitize(span.name), "bold"), "  ", format_duration(span.duration_ns))
    if timing is not None:
        line = Text.assemble(("● " if timing.critical.get(span.span_id) else "  ", "red"), line)
        own = timing.own.get(span.span_id, 0)
        if own != span.duration_ns:
            line.append(f", {format_duration(own)} itself", "dim")
    if span.usage.input or span.usage.output:
        line.append(f"  {span.usage.input:,} in, {span.usage.output:,} out", "dim")
    if span.cost != ZERO or span.held:
        line.append(f"  {format_usd(span.cost)}" + (f" of {format_usd(span.held)} held" if span.held else ""))
    if note := cost_note(span):
        line.append(sanitize(f"  {note}"), "yellow")
    if span.attempt > 1:
        line.append("  stricter retry", "yellow")
    if approval := span.attributes.get(semconv.APPROVAL):
        decided_by = span.attributes.get(semconv.DECIDED_BY)
        line.append(sanitize(f"  {approval}" + (f" by {decided_by}" if decided_by else "")), "cyan")
    for name in ("handrail.refusal", "handrail.reason", "handrail.route.reason"):
        if detail := span.attributes.get(name):
            line.append(f"  {sanitize(str(detail))}", "dim")
    if span.error_type:
        line.append(f"  {sanitize(span.error_type)}", "red")
    if orphan:
        line.append("  (parent missing)", "yellow")
    return line
