"""Places a trace's spans in time so that each lies within its parent, despite skewed clocks and missing spans."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from handrail.traces.model import Span

from .tree import SpanNode, span_tree


@dataclass(slots=True, eq=False)
class TimelineNode:
    """A span's place in its trace, nanoseconds since 1970; its children lie within it, in the order they started."""

    span: Span
    start_ns: int
    end_ns: int
    children: list["TimelineNode"] = field(default_factory=list)

    @property
    def duration_ns(self) -> int:
        """From start to end."""
        return self.end_ns - self.start_ns


def build_timeline(spans: Sequence[Span]) -> TimelineNode | None:
    """The trace as one node with all others below it; None if there are no spans.

    A child that extends beyond an end of its parent is cut there: the parent did not wait for the rest, or a clock is
    off. A child that lies wholly outside its parent extends it instead: for instance the time people took to decide
    after a run had ended, and the work that followed their decision. Spans whose parent is missing become children of
    the root. Without a single root, the node of the first of several spans the whole trace.
    """
    roots = span_tree(spans)
    if not roots:
        return None
    extents = _extents(roots)
    complete = [root for root in roots if not root.orphan]
    single = complete[0] if len(complete) == 1 else None
    if single is None:
        starts, ends = zip(*(extents[id(root)] for root in roots), strict=True)
        top, below = TimelineNode(roots[0].span, min(starts), max(ends)), roots
    else:
        top = TimelineNode(single.span, *extents[id(single)])
        below = [*single.children, *(root for root in roots if root is not single)]
    pending: list[tuple[TimelineNode, Iterable[SpanNode]]] = [(top, below)]
    for parent, children in pending:
        for child in children:
            start, end = (min(max(at, parent.start_ns), parent.end_ns) for at in extents[id(child)])
            node = TimelineNode(child.span, start, end)
            parent.children.append(node)
            pending.append((node, child.children))
        parent.children.sort(key=lambda node: (node.start_ns, node.end_ns, node.span.span_id))
    return top


def walk_timeline(top: TimelineNode) -> Iterator[TimelineNode]:
    """`top` and all nodes below it, parents before their children."""
    pending = [top]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(node.children))


def _extents(roots: Sequence[SpanNode]) -> dict[int, tuple[int, int]]:
    """Start and end of each node by `id()`, extended by children that lie wholly outside it."""
    order = list(roots)
    for node in order:
        order.extend(node.children)
    extents: dict[int, tuple[int, int]] = {}
    for node in reversed(order):
        start, end = first, last = _own_times(node.span)
        for child in node.children:
            child_start, child_end = _own_times(child.span)
            if child_end <= start or child_start >= end:
                first, last = min(first, extents[id(child)][0]), max(last, extents[id(child)][1])
        extents[id(node)] = (first, last)
    return extents


def _own_times(span: Span) -> tuple[int, int]:
    return span.start_ns, max(span.start_ns, span.end_ns)
