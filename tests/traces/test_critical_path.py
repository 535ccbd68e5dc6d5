"""Self time, the critical path, and both over many traces."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.analysis.critical_path import PathSegment, critical_path, self_times, step_shares
from handrail.traces.analysis.timeline import build_timeline, walk_timeline
from handrail.traces.model import Span
from tests.traces.span_builders import S, any_trace, make_span, nested_trace, slow_run


def seconds(path: Sequence[PathSegment]) -> list[tuple[str, float]]:
    return [(segment.span.span_id, segment.duration_ns / S) for segment in path]


def path_by_search(spans: list[Span], root: Span) -> list[tuple[str, int]]:
    """For each nanosecond of `root`, the span it waited for, found by exhaustive search in nested spans."""
    owners: list[tuple[str, int]] = []
    at = root.end_ns
    while at > root.start_ns:
        ended = [
            span
            for span in spans
            if span.parent_id == root.span_id and span.start_ns < span.end_ns and span.end_ns == at
        ]
        if ended:
            child = min(ended, key=lambda span: (span.start_ns, span.span_id))
            owners = path_by_search(spans, child) + owners
            at = child.start_ns
        else:
            at -= 1
            owners.insert(0, (root.span_id, at))
    return owners


@given(nested_trace())
def test_the_path_by_search(spans: list[Span]) -> None:
    """In nested spans the path equals the result of an exhaustive search per nanosecond."""
    owners = [
        (segment.span.span_id, at) for segment in critical_path(spans) for at in range(segment.start_ns, segment.end_ns)
    ]
    assert owners == path_by_search(spans, spans[0])


@given(any_trace())
def test_the_path_has_no_gaps(spans: list[Span]) -> None:
    """For any spans, the segments follow each other from the start of the trace to its end."""
    path, top = critical_path(spans), build_timeline(spans)
    assert top is not None
    assert all(before.end_ns == after.start_ns for before, after in pairwise(path))
    assert all(segment.start_ns < segment.end_ns for segment in path)
    assert sum(segment.duration_ns for segment in path) == top.duration_ns
    if path:
        assert (path[0].start_ns, path[-1].end_ns) == (top.start_ns, top.end_ns)


@given(nested_trace())
def test_the_path_covers_the_root(spans: list[Span]) -> None:
    """In nested spans the path covers exactly the root's time, and each segment lies within its span."""
    path = critical_path(spans)
    assert sum(segment.duration_ns for segment in path) == spans[0].duration_ns
    assert all(segment.span.start_ns <= segment.start_ns and segment.end_ns <= segment.span.end_ns for segment in path)


@given(any_trace(), st.randoms(use_true_random=False))
def test_the_order_of_arrival(spans: list[Span], random: Random) -> None:
    """Path and self times do not depend on the order in which spans arrive."""
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert critical_path(shuffled) == critical_path(spans)
    assert dict(self_times(shuffled)) == dict(self_times(spans))


@given(any_trace())
def test_self_time_by_search(spans: list[Span]) -> None:
    """A span's self time has every nanosecond in which none of its children ran."""
    for span in spans:
        children = [child for child in spans if child.parent_id == span.span_id != child.span_id]
        without_children = [
            at
            for at in range(span.start_ns, span.end_ns)
            if not any(child.start_ns <= at < child.end_ns for child in children)
        ]
        assert self_times(spans)[span.span_id] == len(without_children)


@given(any_trace())
def test_the_timeline(spans: list[Span]) -> None:
    """Every span is placed within its parent, and siblings are in order of their start."""
    top = build_timeline(spans)
    assert top is not None
    parts = list(walk_timeline(top))
    roots = len(parts) - len(spans)
    assert {part.span.span_id for part in parts} == {span.span_id for span in spans}
    assert roots in (0, 1)
    for part in parts:
        assert all(part.start_ns <= child.start_ns <= child.end_ns <= part.end_ns for child in part.children)
        assert all(one.start_ns <= next_.start_ns for one, next_ in pairwise(part.children))


def test_the_slow_crm() -> None:
    """Of 8.2 s the model takes 2.4 s and the look-ups inside the tool 5.8 s."""
    path = seconds(critical_path(slow_run()))
    assert path == [("first", 1.1), ("orders", 2.1), ("tickets", 1.9), ("invoices", 1.8), ("second", 1.3)]


def test_parallel_children() -> None:
    """Of parallel children only the one that ends last is on the path; and nothing else from its start on."""
    spans = [make_span("root", None, 0, 10), make_span("short", "root", 0, 4), make_span("long", "root", 1, 9)]
    assert seconds(critical_path(spans)) == [("root", 1), ("long", 8), ("root", 1)]


def test_waiting_for_people() -> None:
    """Waiting for people and the work after it are on the path although the first span ended long before."""
    spans = [
        make_span("run", None, 0, 2, kind="agent"),
        make_span("ask", "run", 0, 2, kind="model"),
        make_span("again", "run", 100, 103, kind="agent"),
        make_span("people", "again", 1.5, 99, kind="wait"),
    ]
    assert seconds(critical_path(spans)) == [("run", 1.5), ("people", 97.5), ("again", 4)]


def test_a_child_that_outlives_its_parent() -> None:
    """A child's time after the end of its parent is not on the path."""
    spans = [make_span("root", None, 0, 5), make_span("background", "root", 3, 60)]
    assert seconds(critical_path(spans)) == [("root", 3), ("background", 2)]
    assert dict(self_times(spans)) == {"root": 3 * S, "background": 57 * S}


def test_spans_without_their_parent() -> None:
    """A span whose parent is missing counts below the root; two runs without a common root follow each other."""
    lost = [make_span("root", None, 0, 5), make_span("orphan", "lost", 1, 4)]
    assert seconds(critical_path(lost)) == [("root", 1), ("orphan", 3), ("root", 1)]
    two = [make_span("one", "lost", 0, 2), make_span("two", "lost", 3, 5)]
    assert seconds(critical_path(two)) == [("one", 2), ("one", 1), ("two", 2)]


def test_deep_traces() -> None:
    """A chain of 5,000 spans has a critical path and self times."""
    chain = [make_span("s0", None, 0, 5_000), *(make_span(f"s{n}", f"s{n - 1}", n, 5_000) for n in range(1, 5_000))]
    assert seconds(critical_path(chain)) == [(f"s{n}", 1) for n in range(5_000)]
    assert set(self_times(chain).values()) == {S}


def test_steps_over_traces() -> None:
    """Steps add up over traces; their shares are of machine time, and waiting for people is separate."""
    waits = [*slow_run(), make_span("people", "run", 8.2, 100, kind="wait", name="await_approval refund")]
    shares = {(step.kind, step.name): step for step in step_shares([slow_run(), waits])}
    chat, people = shares["model", "chat m"], shares["wait", "await_approval refund"]
    assert (chat.count, chat.self_ns, chat.critical_ns) == (4, 4.8 * S, 4.8 * S)
    assert chat.share == pytest.approx(2.4 / 8.2)
    assert (people.share, people.critical_ns) == (1, 91.8 * S)
    assert sum(step.share for step in shares.values() if step.kind != "wait") == pytest.approx(1)


def test_no_spans() -> None:
    """Without spans there are no path and no shares."""
    assert critical_path([]) == []
    assert step_shares([[]]) == []
