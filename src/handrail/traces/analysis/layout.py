"""A trace's spans laid out in time, each inside its parent, whatever clocks and lost spans made of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from handrail.traces.model import Span

from .tree import Node, span_tree


@dataclass(slots=True, eq=False)
class Part:
    """A span's place in its trace, nanoseconds since 1970; its children lie within it, in the order they began."""

    span: Span
    start_ns: int
    end_ns: int
    children: list["Part"] = field(default_factory=list)

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


def timeline(spans: Sequence[Span]) -> Part | None:
    """The trace as one part with everything below it; None where there are no spans.

    What reaches over its parent's ends is cut there: nobody waited for it, or a clock is off. What lies wholly outside,
    such as people's time to decide and what was carried on after it, stretches the parent instead. Spans whose parent
    is lost hang below the root; where there is no one root, the first of several stands for the whole.
    """
    roots = span_tree(spans)
    if not roots:
        return None
    extents = _extents(roots)
    whole = [root for root in roots if not root.orphan]
    trunk = whole[0] if len(whole) == 1 else None
    if trunk is None:
        starts, ends = zip(*(extents[id(root)] for root in roots), strict=True)
        top, below = Part(roots[0].span, min(starts), max(ends)), roots
    else:
        top = Part(trunk.span, *extents[id(trunk)])
        below = [*trunk.children, *(root for root in roots if root is not trunk)]
    waiting: list[tuple[Part, Iterable[Node]]] = [(top, below)]
    for parent, nodes in waiting:
        for node in nodes:
            start, end = (min(max(at, parent.start_ns), parent.end_ns) for at in extents[id(node)])
            part = Part(node.span, start, end)
            parent.children.append(part)
            waiting.append((part, node.children))
        parent.children.sort(key=lambda part: (part.start_ns, part.end_ns, part.span.span_id))
    return top


def every_part(top: Part) -> Iterator[Part]:
    """`top` and all parts below it, parents before their children."""
    waiting = [top]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(reversed(part.children))


def _extents(roots: Sequence[Node]) -> dict[int, tuple[int, int]]:
    """By the identity of a node: from when to when it lasts, with what lies wholly outside it."""
    order = list(roots)
    for node in order:
        order.extend(node.children)
    found: dict[int, tuple[int, int]] = {}
    for node in reversed(order):
        start, end = first, last = _own(node.span)
        for child in node.children:
            child_start, child_end = _own(child.span)
            if child_end <= start or child_start >= end:
                first, last = min(first, found[id(child)][0]), max(last, found[id(child)][1])
        found[id(node)] = (first, last)
    return found


def _own(span: Span) -> tuple[int, int]:
    return span.start_ns, max(span.start_ns, span.end_ns)
