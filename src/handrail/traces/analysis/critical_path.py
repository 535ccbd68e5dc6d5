"""Where the time of a trace goes: each span's own time, and the critical path."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from handrail.traces.model import Kind, Span

from .timeline import TimelineNode, build_timeline


@dataclass(frozen=True, slots=True)
class PathSegment:
    """A piece of the critical path: the span that the trace was waiting for. Nanoseconds since 1970."""

    span: Span
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """From start to end."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShare:
    """One step over several traces: how often it ran, its own time, and its time on the critical paths.

    `share` is its part of the critical paths' machine time, from 0 to 1; that of a `wait` is its part of the time spent
    waiting for people.
    """

    kind: Kind
    name: str
    count: int
    self_ns: int
    critical_ns: int
    share: float


def self_times(spans: Sequence[Span]) -> Mapping[str, int]:
    """The own time of each span by id: the nanoseconds in which none of its children ran."""
    children: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in spans:
        if span.parent_id != span.span_id:
            children[span.parent_id].append(span)
    return {span.span_id: max(0, span.duration_ns) - _covered(span, children[span.span_id]) for span in spans}


def critical_path(spans: Sequence[Span]) -> Sequence[PathSegment]:
    """The segments that determine how long a trace took, in order and without gaps.

    They are found backwards from the end, as in Jaeger and CRISP: at any point in a span, it was waiting for the child
    that ended last before that point, and the search continues at that child's start. Where no child had ended, the
    span itself was working. `build_timeline` decides what counts as inside a span.
    """
    top = build_timeline(spans)
    return [] if top is None else list(_backwards(top))[::-1]


def step_shares(traces: Iterable[Sequence[Span]]) -> list[StepShare]:
    """The steps of these traces, those with the most time on the critical paths first."""
    counts: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    own: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    critical: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    for spans in traces:
        self_ns = self_times(spans)
        for span in spans:
            counts[span.kind, span.name] += 1
            own[span.kind, span.name] += self_ns[span.span_id]
        for segment in critical_path(spans):
            critical[segment.span.kind, segment.span.name] += segment.duration_ns
    waiting = sum(time for (kind, _), time in critical.items() if kind == "wait")
    machine = sum(critical.values()) - waiting
    steps = [
        StepShare(
            kind=step[0],
            name=step[1],
            count=count,
            self_ns=own[step],
            critical_ns=critical[step],
            share=critical[step] / ((waiting if step[0] == "wait" else machine) or 1),
        )
        for step, count in counts.items()
    ]
    return sorted(steps, key=lambda step: (-step.critical_ns, -step.self_ns, step.kind, step.name))


def _covered(span: Span, children: Sequence[Span]) -> int:
    """The nanoseconds of `span` in which at least one of `children` ran."""
    covered, until = 0, span.start_ns
    for child in sorted(children, key=lambda child: child.start_ns):
        start, end = max(child.start_ns, until), min(child.end_ns, span.end_ns)
        if end > start:
            covered += end - start
            until = end
    return covered


@dataclass(slots=True)
class _Visit:
    """A node being searched backwards from `at`; `remaining` are the children still to try, the last to end first."""

    node: TimelineNode
    at: int
    remaining: Iterator[TimelineNode]


def _backwards(top: TimelineNode) -> Iterator[PathSegment]:
    visits = [_visit(top)]
    while visits:
        visit = visits[-1]
        child = next((child for child in visit.remaining if child.end_ns <= visit.at and child.duration_ns), None)
        start = visit.node.start_ns if child is None else child.end_ns
        if start < visit.at:
            yield PathSegment(visit.node.span, start, visit.at)
        if child is None:
            visits.pop()
        else:
            visit.at = child.start_ns
            visits.append(_visit(child))


def _visit(node: TimelineNode) -> _Visit:
    last_first = sorted(node.children, key=lambda child: (-child.end_ns, child.start_ns, child.span.span_id))
    return _Visit(node, node.end_ns, iter(last_first))
