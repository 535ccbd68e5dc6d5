"""The tree of a trace's spans, with any parents."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.analysis.tree import SpanNode, span_tree
from handrail.traces.model import Span


def span(name: str, parent: str | None = None, start: int = 0) -> Span:
    return Span(
        trace_id="t",
        span_id=name,
        parent_id=parent,
        kind="step",
        name=name,
        start_ns=start,
        end_ns=start + 1,
        tenant="",
        user="",
        agent="",
        run_id="",
    )


def walk(roots: list[SpanNode]) -> list[SpanNode]:
    """Every node, parents before children, without recursion."""
    nodes = list(roots)
    for node in nodes:
        nodes.extend(node.children)
    return nodes


@st.composite
def any_spans(draw: st.DrawFn) -> list[Span]:
    """Spans with any parents: none, each other, themselves, or a span that does not exist."""
    ids = [f"s{n}" for n in range(draw(st.integers(0, 12)))]
    parents = st.none() | st.sampled_from([*ids, "lost"])
    return [span(span_id, draw(parents), draw(st.integers(0, 5))) for span_id in ids]


@given(any_spans())
def test_every_span_once(spans: list[Span]) -> None:
    """Every span is in the tree exactly once, including orphans, cycles, and their descendants."""
    span_ids = [node.span.span_id for node in walk(span_tree(spans))]
    assert sorted(span_ids) == sorted(span_.span_id for span_ in spans)


@given(any_spans())
def test_children_are_below_their_parents(spans: list[Span]) -> None:
    """A child's parent is the node above it, children are in the order of their start, and only roots are orphans."""
    roots = span_tree(spans)
    for node in walk(roots):
        assert {child.span.parent_id for child in node.children} <= {node.span.span_id}
        order = [(child.span.start_ns, child.span.span_id) for child in node.children]
        assert order == sorted(order)
        assert not any(child.orphan for child in node.children)
    assert all(root.orphan == (root.span.parent_id is not None) for root in roots)


@given(any_spans(), st.randoms(use_true_random=False))
def test_the_order_of_arrival(spans: list[Span], random: Random) -> None:
    """The tree does not depend on the order in which spans arrive."""
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert span_tree(shuffled) == span_tree(spans)


def test_orphans() -> None:
    """A span whose parent is missing is a root, marked as an orphan, with its own children below it."""
    [root, orphan] = span_tree([span("root"), span("orphan", "lost", 1), span("child", "orphan", 2)])
    assert (root.orphan, orphan.orphan) == (False, True)
    assert [child.span.name for child in orphan.children] == ["child"]


def test_cycles() -> None:
    """A cycle is cut at its first span, also if a descendant of it started earlier."""
    spans = [span("tail", "b", 0), span("a", "b", 2), span("b", "a", 1), span("self", "self", 3)]
    cycle, self_parent = span_tree(spans)
    assert (cycle.span.name, cycle.orphan) == ("b", True)
    assert [child.span.name for child in cycle.children] == ["tail", "a"]
    assert (self_parent.span.name, self_parent.children) == ("self", ())


def test_deep_chains() -> None:
    """A chain of 5,000 spans is a tree 5,000 deep."""
    chain = [span("s0"), *(span(f"s{n}", f"s{n - 1}", n) for n in range(1, 5_000))]
    node = span_tree(chain[::-1])[0]
    depth = 1
    while node.children:
        [node] = node.children
        depth += 1
    assert (depth, node.span.name) == (5_000, "s4999")


def test_a_deep_cycle() -> None:
    """A cycle of 5,000 spans is cut once, at its first span."""
    cycle = [span(f"s{n}", f"s{(n - 1) % 5_000}", n) for n in range(5_000)]
    [root] = span_tree(cycle)
    assert root.span.name == "s0"
    assert len(walk([root])) == 5_000


def test_no_spans() -> None:
    """Without spans there is no tree."""
    assert span_tree([]) == []
