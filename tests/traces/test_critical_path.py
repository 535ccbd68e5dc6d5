"""Self time, the critical path, and both over many traces."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.traces.analysis.critical_path import Segment, critical_path, self_time, shares
from handrail.traces.analysis.layout import every_part, timeline
from handrail.traces.model import Span
from tests.traces.span_builders import S, any_trace, made, nested_trace, slow_run


def seconds(path: Sequence[Segment]) -> list[tuple[str, float]]:
    return [(each.span.span_id, each.duration_ns / S) for each in path]


def path_by_hand(spans: list[Span], root: Span) -> list[tuple[str, int]]:
    """Who is waited for in each nanosecond of `root`, by trying every child at every point; spans are nested."""
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
            owners = path_by_hand(spans, child) + owners
            at = child.start_ns
        else:
            at -= 1
            owners.insert(0, (root.span_id, at))
    return owners


@given(nested_trace())
def test_the_path_by_hand(spans: list[Span]) -> None:
    """In nested spans the path is what going back nanosecond by nanosecond finds."""
    found = [(each.span.span_id, at) for each in critical_path(spans) for at in range(each.start_ns, each.end_ns)]
    assert found == path_by_hand(spans, spans[0])


@given(any_trace())
def test_the_path_has_no_gaps(spans: list[Span]) -> None:
    """Whatever the spans say, the path's pieces follow each other from the begin of the trace to its end."""
    path, top = critical_path(spans), timeline(spans)
    assert top is not None
    assert all(before.end_ns == after.start_ns for before, after in pairwise(path))
    assert all(each.start_ns < each.end_ns for each in path)
    assert sum(each.duration_ns for each in path) == top.duration_ns
    if path:
        assert (path[0].start_ns, path[-1].end_ns) == (top.start_ns, top.end_ns)


@given(nested_trace())
def test_the_path_covers_the_root(spans: list[Span]) -> None:
    """In nested spans the path covers exactly the root's time, and each piece lies within its span."""
    path = critical_path(spans)
    assert sum(each.duration_ns for each in path) == spans[0].duration_ns
    assert all(each.span.start_ns <= each.start_ns and each.end_ns <= each.span.end_ns for each in path)


@given(any_trace(), st.randoms(use_true_random=False))
def test_the_order_of_arrival(spans: list[Span], random: Random) -> None:
    """Path and self times are the same in whatever order the spans come."""
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert critical_path(shuffled) == critical_path(spans)
    assert dict(self_time(shuffled)) == dict(self_time(spans))


@given(any_trace())
def test_self_time_by_hand(spans: list[Span]) -> None:
    """A span's own time is each nanosecond of it in which none of its children ran."""
    for span in spans:
        children = [each for each in spans if each.parent_id == span.span_id != each.span_id]
        alone = [
            at
            for at in range(span.start_ns, span.end_ns)
            if not any(child.start_ns <= at < child.end_ns for child in children)
        ]
        assert self_time(spans)[span.span_id] == len(alone)


@given(any_trace())
def test_the_timeline(spans: list[Span]) -> None:
    """Every span has its place, inside its parent's and in the order of beginning."""
    top = timeline(spans)
    assert top is not None
    parts = list(every_part(top))
    roots = len(parts) - len(spans)
    assert {part.span.span_id for part in parts} == {span.span_id for span in spans}
    assert roots in (0, 1)
    for part in parts:
        assert all(part.start_ns <= child.start_ns <= child.end_ns <= part.end_ns for child in part.children)
        assert all(one.start_ns <= next_.start_ns for one, next_ in pairwise(part.children))


def test_the_slow_crm() -> None:
    """The log said that the model is slow; of 8.2 s it takes 2.4, the look-ups inside the tool 5.8."""
    path = seconds(critical_path(slow_run()))
    assert path == [("first", 1.1), ("orders", 2.1), ("tickets", 1.9), ("invoices", 1.8), ("second", 1.3)]


def test_side_by_side() -> None:
    """Of children side by side only the one that ends last is waited for; what ran at its begin is not."""
    spans = [made("root", None, 0, 10), made("short", "root", 0, 4), made("long", "root", 1, 9)]
    assert seconds(critical_path(spans)) == [("root", 1), ("long", 8), ("root", 1)]


def test_waiting_for_people() -> None:
    """People's time, and what was carried on after it, is on the path though the first span had long ended."""
    spans = [
        made("run", None, 0, 2, kind="agent"),
        made("ask", "run", 0, 2, kind="model"),
        made("again", "run", 100, 103, kind="agent"),
        made("people", "again", 1.5, 99, kind="wait"),
    ]
    assert seconds(critical_path(spans)) == [("run", 1.5), ("people", 97.5), ("again", 4)]


def test_a_child_that_outlives_its_parent() -> None:
    """What a child did after its parent's end was not waited for."""
    spans = [made("root", None, 0, 5), made("background", "root", 3, 60)]
    assert seconds(critical_path(spans)) == [("root", 3), ("background", 2)]
    assert dict(self_time(spans)) == {"root": 3 * S, "background": 57 * S}


def test_spans_without_their_parent() -> None:
    """A span whose parent is lost counts below the root; two runs without a common root follow each other."""
    lost = [made("root", None, 0, 5), made("orphan", "lost", 1, 4)]
    assert seconds(critical_path(lost)) == [("root", 1), ("orphan", 3), ("root", 1)]
    two = [made("one", "lost", 0, 2), made("two", "lost", 3, 5)]
    assert seconds(critical_path(two)) == [("one", 2), ("one", 1), ("two", 2)]


def test_deep_traces() -> None:
    """A chain of 5,000 spans is walked like any other."""
    chain = [made("s0", None, 0, 5_000), *(made(f"s{n}", f"s{n - 1}", n, 5_000) for n in range(1, 5_000))]
    assert seconds(critical_path(chain)) == [(f"s{n}", 1) for n in range(5_000)]
    assert set(self_time(chain).values()) == {S}


def test_steps_over_traces() -> None:
    """Steps add up over traces; their shares are of machine time, and people's waiting stands apart."""
    waits = [*slow_run(), made("people", "run", 8.2, 100, kind="wait", name="await_approval refund")]
    found = {(step.kind, step.name): step for step in shares([slow_run(), waits])}
    chat, people = found["model", "chat m"], found["wait", "await_approval refund"]
    assert (chat.count, chat.self_ns, chat.critical_ns) == (4, 4.8 * S, 4.8 * S)
    assert chat.share == pytest.approx(2.4 / 8.2)
    assert (people.share, people.critical_ns) == (1, 91.8 * S)
    assert sum(step.share for step in found.values() if step.kind != "wait") == pytest.approx(1)


def test_nothing() -> None:
    """No spans have no path and no shares."""
    assert critical_path([]) == []
    assert shares([[]]) == []
