"""Builds the tree of a trace's spans, also when parents are missing or form a cycle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handrail.traces.model import Span


@dataclass(frozen=True)
class SpanNode:
    """A span and its children. An orphan names a parent that is lost, has not arrived, or is another program's."""

    span: Span
    children: tuple["SpanNode", ...]
    orphan: bool


def span_tree(spans: Sequence[Span]) -> list[SpanNode]:
    """The roots, each with its children in the order in which they started; orphans are among the roots.

    Spans whose parents form a cycle have no root: each such cycle is cut at its first span.
    """
    ordered = sorted(spans, key=_order)
    by_id: dict[str | None, Span] = {span.span_id: span for span in ordered}
    children: dict[str | None, list[Span]] = {}
    for span in ordered:
        children.setdefault(span.parent_id if span.parent_id in by_id else None, []).append(span)
    placed: set[str] = set()
    roots = [_subtree(span, children, placed) for span in children.get(None, ())]
    roots.extend(
        _subtree(_cycle_start(span, by_id), children, placed) for span in ordered if span.span_id not in placed
    )
    return roots


def _order(span: Span) -> tuple[int, str]:
    return span.start_ns, span.span_id


def _cycle_start(span: Span, by_id: Mapping[str | None, Span]) -> Span:
    """The first span of the cycle that `span` is part of or descends from."""
    visited: dict[str, None] = {}
    while span.span_id not in visited:
        visited[span.span_id] = None
        span = by_id[span.parent_id]
    cycle = list(visited)[list(visited).index(span.span_id) :]
    return min((by_id[span_id] for span_id in cycle), key=_order)


def _subtree(root: Span, children: dict[str | None, list[Span]], placed: set[str]) -> SpanNode:
    """The tree below `root`, without recursion: an agent that calls itself may go deeper than Python's stack."""
    order = [root]
    placed.add(root.span_id)
    for span in order:
        for child in children.get(span.span_id, ()):
            if child.span_id not in placed:
                placed.add(child.span_id)
                order.append(child)
    nodes: dict[str, SpanNode] = {}
    for span in reversed(order):
        child_nodes = tuple(nodes[child.span_id] for child in children.get(span.span_id, ()) if child.span_id in nodes)
        nodes[span.span_id] = SpanNode(span, child_nodes, orphan=span is root and span.parent_id is not None)
    return nodes[root.span_id]
