"""A trace's spans as the rows of its waterfall: flat, in tree order, and small enough to send thousands. Pure."""

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from handrail.kernel.money import format_usd
from handrail.server.templating import sanitize_value
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.analysis.tree import SpanNode, span_tree
from handrail.traces.model import Span
from handrail.traces.reports import cost_note

WIDTH = 10_000
"""The width of the waterfall, in the units of its rows."""
_WAIT_WIDTH = 0.05
"""The part of the width given to a period of waiting for people, however long it was."""


@dataclass(frozen=True)
class TimeScale:
    """Maps time to horizontal positions: linear, except that the time in which people decide is compressed.

    Attributes:
        times_ns: Points in time, in nanoseconds, ascending.
        positions: The position of each, from 0 to WIDTH; linear in between.
    """

    times_ns: Sequence[int]
    positions: Sequence[float]

    def position(self, time_ns: int) -> float:
        """The position of a time in nanoseconds, from 0 to WIDTH."""
        times_ns, positions = self.times_ns, self.positions
        at = 0 if len(times_ns) == 2 else min(max(bisect_right(times_ns, time_ns) - 1, 0), len(times_ns) - 2)
        begin, end = times_ns[at], times_ns[at + 1]
        if time_ns <= begin:
            return positions[at]
        if time_ns >= end:
            return positions[at + 1]
        return positions[at] + (time_ns - begin) / (end - begin) * (positions[at + 1] - positions[at])

    def extent(self, start_ns: int, end_ns: int) -> list[float]:
        """The position where a period begins, and its width."""
        begin = self.position(start_ns)
        return [round(begin, 1), round(self.position(max(start_ns, end_ns)) - begin, 1)]


def time_scale(spans: Sequence[Span]) -> TimeScale:
    """The scale of a trace, which has at least one span."""
    begin, end = min(span.start_ns for span in spans), max(max(span.start_ns, span.end_ns) for span in spans)
    # Only periods without any other work are compressed; an agent's span covers its waits, so it is not work itself.
    waits = _subtract(
        _merge((span.start_ns, span.end_ns) for span in spans if span.kind == "wait"),
        _merge((span.start_ns, span.end_ns) for span in spans if span.kind not in ("wait", "agent")),
    )
    times_ns = sorted({begin, end, *(time_ns for wait in waits for time_ns in wait)})
    times_ns = times_ns if len(times_ns) > 1 else [begin, begin + 1]
    compressed = set(waits)
    machine_ns = sum(b - a for a, b in itertools.pairwise(times_ns) if (a, b) not in compressed)
    machine_width = 1.0 - _WAIT_WIDTH * len(waits) if machine_ns else 0.0
    positions = [0.0]
    for piece in itertools.pairwise(times_ns):
        if piece in compressed:
            width = _WAIT_WIDTH if machine_ns else 1 / len(waits)
        else:
            width = machine_width * (piece[1] - piece[0]) / machine_ns
        positions.append(positions[-1] + WIDTH * width)
    return TimeScale(times_ns, positions)


def waterfall(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """One row for each span, parents before their children.

    A row's `bar` is where the span begins and how wide it is; `path` has the same for each part of it that is on the
    critical path. Keys without a value are left out.
    """
    scale = time_scale(spans)
    critical: dict[str, list[list[float]]] = {}
    for segment in critical_path(spans):
        critical.setdefault(segment.span.span_id, []).append(scale.extent(segment.start_ns, segment.end_ns))
    rows: list[dict[str, Any]] = []
    # A stack instead of recursion: traces from elsewhere may be nested deeper than Python's recursion limit.
    stack: list[tuple[SpanNode, int]] = [(node, 0) for node in reversed(span_tree(spans))]
    while stack:
        node, depth = stack.pop()
        rows.append(_row(node, depth, scale, critical.get(node.span.span_id, [])))
        stack.extend((child, depth + 1) for child in reversed(node.children))
    return rows


def json_for_script(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # In a data block only "</script" or "<!--" could end the element or change its parsing: no "<", no way out.
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _row(node: SpanNode, depth: int, scale: TimeScale, critical: list[list[float]]) -> dict[str, Any]:
    span = node.span
    row: dict[str, Any] = {
        "id": span.span_id,
        "depth": depth,
        "kind": span.kind,
        "name": sanitize_value(span.name[:200]),
        "duration_us": max(0, span.duration_ns) // 1_000,
        "bar": scale.extent(span.start_ns, span.end_ns),
        "children": len(node.children),
    }
    optional = {
        "cost": format_usd(span.cost) if span.cost else "",
        "error": sanitize_value(span.error_type[:200]) if span.error_type else "",
        "note": _note(node),
        "path": critical,
    }
    return {**row, **{name: value for name, value in optional.items() if value}}


def _note(node: SpanNode) -> str:
    notes = []
    if node.span.attempt > 1:
        notes.append(f"attempt {node.span.attempt}")
    if node.orphan:
        notes.append("parent missing")
    if node.span.kind == "model" and node.span.held is None and node.span.cost:
        notes.append("ungoverned")
    if note := cost_note(node.span):
        notes.append(sanitize_value(note))
    return ", ".join(notes)


def _merge(periods: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of periods, as periods that do not touch, in order."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(periods):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def _subtract(periods: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `periods` that lie in none of `others`; both are merged."""
    remaining = []
    for start, end in periods:
        for other_start, other_end in others:
            if other_end > start and other_start < end:
                if other_start > start:
                    remaining.append((start, other_start))
                start = max(start, other_end)
        if end > start:
            remaining.append((start, end))
    return remaining
