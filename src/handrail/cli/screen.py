"""What the commands print: tables and trees for people, JSON for programs."""

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from handrail.kernel import ZERO, show_usd
from handrail.traces import Node, Span, names

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

# What a terminal obeys instead of showing it: control characters, and the marks that turn the direction of text.
_OBEYED = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"},
    **dict.fromkeys((*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}
# The same in JSON, which escapes the first 32 by itself, and the halves of characters that UTF-8 cannot hold.
_OBEYED_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
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
    typer.echo(_OBEYED_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers, those of ids are never broken: they get copied."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in _ID_COLUMNS)
    return made


def harmless(text: str) -> str:
    """The text with what a terminal would obey shown as a symbol; tabs and line breaks stay."""
    return text.translate(_OBEYED)


def excerpt(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, harmless and safe as markup."""
    line = harmless(" ".join(text.split()))
    return escape(line if len(line) <= length else line[: length - 1] + "…")


def show_duration(duration: timedelta | None) -> str:
    """In the unit that suits it: milliseconds, seconds, minutes, hours or days."""
    if duration is None:
        return ""
    seconds = duration.total_seconds()
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


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


def show_ns(duration_ns: int) -> str:
    """Nanoseconds in the unit that suits them."""
    return show_duration(timedelta(microseconds=duration_ns // 1_000))


def _line(span: Span, timing: Timing | None, *, orphan: bool) -> Text:
    took = show_ns(span.duration_ns)
    line = Text.assemble((harmless(span.name), "bold"), "  ", took)
    if timing is not None:
        line = Text.assemble(("● " if timing.critical.get(span.span_id) else "  ", "red"), line)
        own = timing.own.get(span.span_id, 0)
        if own != span.duration_ns:
            line.append(f", {show_ns(own)} itself", "dim")
    if span.usage.input or span.usage.output:
        line.append(f"  {span.usage.input:,} in, {span.usage.output:,} out", "dim")
    if span.cost != ZERO or span.held:
        line.append(f"  {show_usd(span.cost)}" + (f" of {show_usd(span.held)} held" if span.held else ""))
    if span.attempt > 1:
        line.append("  stricter retry", "yellow")
    if approval := span.attributes.get(names.APPROVAL):
        decided_by = span.attributes.get(names.DECIDED_BY)
        line.append(harmless(f"  {approval}" + (f" by {decided_by}" if decided_by else "")), "cyan")
    for name in ("handrail.refusal", "handrail.reason", "handrail.route.reason"):
        if said := span.attributes.get(name):
            line.append(f"  {harmless(str(said))}", "dim")
    if span.error_type:
        line.append(f"  {harmless(span.error_type)}", "red")
    if orphan:
        line.append("  (its parent is missing)", "yellow")
    return line
