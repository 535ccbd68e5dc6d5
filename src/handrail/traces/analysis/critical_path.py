"""Where the time went: what each span did itself, and the chain of spans that a trace waited for."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from handrail.traces.model import Kind, Span

from .layout import Part, timeline


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the critical path: nothing else was waited for then. Nanoseconds since 1970."""

    span: Span
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShare:
    """A step over several traces: how often it ran, its own time, and its time on the critical paths.

    `share` is of the critical paths' machine time, from 0 to 1; a `wait`'s is of their time waiting for people.
    """

    kind: Kind
    name: str
    count: int
    self_ns: int
    critical_ns: int
    share: float


def self_time(spans: Sequence[Span]) -> Mapping[str, int]:
    """By span id: the nanoseconds of a span that none of its children cover."""
    below: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in spans:
        if span.parent_id != span.span_id:
            below[span.parent_id].append(span)
    return {span.span_id: max(0, span.duration_ns) - _covered(span, below[span.span_id]) for span in spans}


def critical_path(spans: Sequence[Span]) -> Sequence[Segment]:
    """The pieces of a trace, in order and without gaps, that its length is made of.

    Found backwards from the end, as Jaeger and CRISP do: before a point in a span, what was waited for is its child
    that ended last until then, and from that child's start on the search goes on in the span. Wherever none had ended,
    the span itself was at work. `timeline` says what counts as inside a span.
    """
    top = timeline(spans)
    return [] if top is None else list(_backwards(top))[::-1]


def shares(traces: Iterable[Sequence[Span]]) -> list[StepShare]:
    """Steps over all of these traces, those that take most of the critical paths first."""
    counts: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    own: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    critical: defaultdict[tuple[Kind, str], int] = defaultdict(int)
    for spans in traces:
        alone = self_time(spans)
        for span in spans:
            counts[span.kind, span.name] += 1
            own[span.kind, span.name] += alone[span.span_id]
        for segment in critical_path(spans):
            critical[segment.span.kind, segment.span.name] += segment.duration_ns
    waiting = sum(time for (kind, _), time in critical.items() if kind == "wait")
    machine = sum(critical.values()) - waiting
    found = [
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
    return sorted(found, key=lambda step: (-step.critical_ns, -step.self_ns, step.kind, step.name))


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
class _Walk:
    """A part on the way back through it: from `at`, with these children still to try, the last to end first."""

    part: Part
    at: int
    left: Iterator[Part]


def _backwards(top: Part) -> Iterator[Segment]:
    walks = [_into(top)]
    while walks:
        here = walks[-1]
        child = next((child for child in here.left if child.end_ns <= here.at and child.duration_ns), None)
        start = here.part.start_ns if child is None else child.end_ns
        if start < here.at:
            yield Segment(here.part.span, start, here.at)
        if child is None:
            walks.pop()
        else:
            here.at = child.start_ns
            walks.append(_into(child))


def _into(part: Part) -> _Walk:
    last_first = sorted(part.children, key=lambda child: (-child.end_ns, child.start_ns, child.span.span_id))
    return _Walk(part, part.end_ns, iter(last_first))
