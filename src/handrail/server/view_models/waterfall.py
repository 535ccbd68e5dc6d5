"""A trace's spans as the rows of its waterfall: flat, in the order of the tree, small enough to send thousands."""

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from handrail.kernel.money import show_usd
from handrail.server.text import shown
from handrail.traces.analysis.critical_path import critical_path
from handrail.traces.analysis.tree import Node, span_tree
from handrail.traces.model import Span

WIDTH = 10_000
"""Of the waterfall, in the units of its rows."""
_WAIT = 0.05
"""The part of the width that a time in which only people were waited for gets, however long it was."""


@dataclass(frozen=True)
class Scale:
    """Where a moment stands in the waterfall: as time has it, but for people's time to decide, which is cut short.

    `moments` are nanoseconds, in order; `places` are theirs, from 0 to WIDTH.
    """

    moments: Sequence[int]
    places: Sequence[float]

    def place(self, moment: int) -> float:
        """From 0 to WIDTH."""
        moments, places = self.moments, self.places
        at = 0 if len(moments) == 2 else min(max(bisect_right(moments, moment) - 1, 0), len(moments) - 2)
        begin, end = moments[at], moments[at + 1]
        if moment <= begin:
            return places[at]
        if moment >= end:
            return places[at + 1]
        return places[at] + (moment - begin) / (end - begin) * (places[at + 1] - places[at])

    def stretch(self, start_ns: int, end_ns: int) -> list[float]:
        """Where a stretch begins, and how wide it is."""
        begin = self.place(start_ns)
        return [round(begin, 1), round(self.place(max(start_ns, end_ns)) - begin, 1)]


def scale_of(spans: Sequence[Span]) -> Scale:
    """The scale of a trace, which has at least one span."""
    begin, end = min(span.start_ns for span in spans), max(max(span.start_ns, span.end_ns) for span in spans)
    waits = _outside(
        _merged((span.start_ns, span.end_ns) for span in spans if span.kind == "wait"),
        _merged((span.start_ns, span.end_ns) for span in spans if span.kind not in ("wait", "agent")),
    )
    moments = sorted({begin, end, *(moment for wait in waits for moment in wait)})
    moments = moments if len(moments) > 1 else [begin, begin + 1]
    waiting = set(waits)
    machine = sum(b - a for a, b in itertools.pairwise(moments) if (a, b) not in waiting)
    left = 1.0 - _WAIT * len(waits) if machine else 0.0
    places = [0.0]
    for piece in itertools.pairwise(moments):
        part = (_WAIT if machine else 1 / len(waits)) if piece in waiting else left * (piece[1] - piece[0]) / machine
        places.append(places[-1] + WIDTH * part)
    return Scale(moments, places)


def waterfall(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """One row for each span, parents before their children; `bar` and `path` are places and widths of the scale.

    `path` holds the pieces of the span that the trace waited for.
    """
    scale = scale_of(spans)
    pieces: dict[str, list[list[float]]] = {}
    for segment in critical_path(spans):
        pieces.setdefault(segment.span.span_id, []).append(scale.stretch(segment.start_ns, segment.end_ns))
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[Node, int]] = [(node, 0) for node in reversed(span_tree(spans))]
    while waiting:
        node, depth = waiting.pop()
        rows.append(_row(node, depth, scale, pieces.get(node.span.span_id, [])))
        waiting.extend((child, depth + 1) for child in reversed(node.children))
    return rows


def as_data(found: Any) -> Markup:
    """JSON that may stand in a script element: a data block, of which no text can end the element."""
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _row(node: Node, depth: int, scale: Scale, pieces: list[list[float]]) -> dict[str, Any]:
    span = node.span
    row: dict[str, Any] = {
        "id": span.span_id,
        "depth": depth,
        "kind": span.kind,
        "name": shown(span.name[:200]),
        "took": max(0, span.duration_ns) // 1_000,
        "bar": scale.stretch(span.start_ns, span.end_ns),
        "below": len(node.children),
    }
    notes = {
        "cost": show_usd(span.cost) if span.cost else "",
        "error": shown(span.error_type[:200]) if span.error_type else "",
        "note": _note(node),
        "path": pieces,
    }
    return {**row, **{name: value for name, value in notes.items() if value}}


def _note(node: Node) -> str:
    notes = []
    if node.span.attempt > 1:
        notes.append(f"attempt {node.span.attempt}")
    if node.orphan:
        notes.append("its parent is missing")
    if node.span.kind == "model" and node.span.held is None and node.span.cost:
        notes.append("ungoverned")
    return ", ".join(notes)


def _merged(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same time in pieces that do not touch, in order."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > start:
            found.append((start, end))
    return found


def _outside(pieces: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of `pieces` lies in none of `others`; both merged."""
    found = []
    for start, end in pieces:
        for other_start, other_end in others:
            if other_end > start and other_start < end:
                if other_start > start:
                    found.append((start, other_start))
                start = max(start, other_end)
        if end > start:
            found.append((start, end))
    return found
