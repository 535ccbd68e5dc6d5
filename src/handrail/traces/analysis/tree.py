"""A trace's spans as the tree they form: who called what, in order, with what is missing said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handrail.traces.model import Span


@dataclass(frozen=True)
class Node:
    """A span and what ran inside it. `orphan`: its parent is lost, not yet here, or another program's."""

    span: Span
    children: tuple["Node", ...]
    orphan: bool


def span_tree(spans: Sequence[Span]) -> list[Node]:
    """The roots, each with its children in the order they began; orphans stand among the roots.

    Spans that name each other as parents in a circle belong to no root; each such circle is opened at its first span.
    """
    ordered = sorted(spans, key=_order)
    known: dict[str | None, Span] = {span.span_id: span for span in ordered}
    below: dict[str | None, list[Span]] = {}
    for span in ordered:
        below.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    placed: set[str] = set()
    roots = [_grown(span, below, placed) for span in below.get(None, ())]
    roots.extend(_grown(_opening(span, known), below, placed) for span in ordered if span.span_id not in placed)
    return roots


def _order(span: Span) -> tuple[int, str]:
    return span.start_ns, span.span_id


def _opening(span: Span, known: Mapping[str | None, Span]) -> Span:
    """The first span of the circle that `span` is part of, or hangs from."""
    passed: dict[str, None] = {}
    while span.span_id not in passed:
        passed[span.span_id] = None
        span = known[span.parent_id]
    circle = list(passed)[list(passed).index(span.span_id) :]
    return min((known[span_id] for span_id in circle), key=_order)


def _grown(root: Span, below: dict[str | None, list[Span]], placed: set[str]) -> Node:
    """The tree below `root`, without recursion: an agent that calls itself may go deeper than Python's stack."""
    order = [root]
    placed.add(root.span_id)
    for span in order:
        for child in below.get(span.span_id, ()):
            if child.span_id not in placed:
                placed.add(child.span_id)
                order.append(child)
    made: dict[str, Node] = {}
    for span in reversed(order):
        children = tuple(made[child.span_id] for child in below.get(span.span_id, ()) if child.span_id in made)
        made[span.span_id] = Node(span, children, orphan=span is root and span.parent_id is not None)
    return made[root.span_id]
