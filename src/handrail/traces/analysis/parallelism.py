"""Finds spans that ran one after the other but could have run in parallel, and computes what that would save.

Two kinds of groups are searched: the children of one span, and the steps inside a tool together with what ran before
the tool, since a look-up that needs nothing from the model can start before the model asks for it.
"""

import functools
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from handrail.traces.model import Span

from .dependencies import Certainty, IndependenceReason, SpanDependencies
from .simulation import simulate_duration
from .timeline import TimelineNode, build_timeline, walk_timeline

MAX_COMPARED_PAIRS = 200_000
"""About how many pairs of spans are compared in a trace: in a long one, each span is compared with fewer before it."""
MIN_SAVED_SHARE = Fraction(1, 100)
"""The least share of a trace's time that an opportunity must save."""
_MAX_SIMULATED = 24
"""The number of groups that are simulated: those with the largest gain."""
_SIMILAR_SAVING = Fraction(9, 10)
"""The share of another group's saving from which two savings count as similar."""

_EXPLANATIONS: Mapping[IndependenceReason, str] = {
    "requested together": "the model asked for them in one message",
    "no shared values": "no value that an earlier one returned is in the arguments of a later one",
    "overlapping": "some of them already overlapped",
    "known before": "the values they share were known before the first of them",
    "short match": "a short value is both in a result and in later arguments, perhaps by chance",
    "not recorded": "nothing contradicts it, but not all of their arguments and results were recorded",
    "writes": "one of them writes, so that their order may matter",
    "effect undeclared": "the tool is not declared as one that only reads",
}


@dataclass(frozen=True, kw_only=True)
class ParallelismOpportunity:
    """Spans that ran one after the other and could have started together with the first of them.

    `inside` is the span that contains them all. Times are in nanoseconds: of these spans as they ran (`sequential_ns`)
    and in parallel, and of the whole trace as it was and as it would be. Savings of several opportunities do not add
    up.
    """

    certainty: Certainty
    reasons: tuple[IndependenceReason, ...]
    spans: tuple[Span, ...]
    inside: Span
    ahead_of_model: bool
    """They would start before the model asks for them: worthwhile if it nearly always does."""
    sequential_ns: int
    parallel_ns: int
    trace_now_ns: int
    trace_then_ns: int

    @property
    def saved_ns(self) -> int:
        """How much sooner the whole trace would end."""
        return self.trace_now_ns - self.trace_then_ns

    @property
    def names(self) -> str:
        """The names of the spans, as a phrase."""
        counts = Counter(span.name for span in self.spans)
        phrases = [name if count == 1 else f"{name} ({count} times)" for name, count in counts.items()]
        return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"

    def __str__(self) -> str:
        reasons = "; ".join(_EXPLANATIONS[reason] for reason in self.reasons)
        ahead = " They would start before the model asks: worthwhile if it nearly always does." * self.ahead_of_model
        return (
            f"{self.names} ran one after the other in {self.inside.name}: {_seconds(self.sequential_ns)}; in parallel "
            f"{_seconds(self.parallel_ns)}. The trace would take {_seconds(self.trace_then_ns)} instead of "
            f"{_seconds(self.trace_now_ns)}. {self.certainty.capitalize()}: {reasons}.{ahead}"
        )


def find_parallelism(spans: Sequence[Span], payloads: Mapping[str, Mapping[str, Any]]) -> list[ParallelismOpportunity]:
    """The opportunities in one trace, those that save most first.

    Spans are never called independent if a value that came out of one went into a later one: any text of more than 3
    characters, any number of 3 digits or more.

    Args:
        spans: All spans of the trace.
        payloads: Their payloads by span id, as far as they are available.
    """
    top = build_timeline(spans)
    if top is None or not top.duration_ns:
        return []
    dependencies = SpanDependencies(top, payloads)
    min_saved = top.duration_ns * MIN_SAVED_SHARE
    window = max(16, MAX_COMPARED_PAIRS // len(spans))
    groups = [
        group
        for parent in walk_timeline(top)
        for group in _groups_in(parent, dependencies, window)
        if group.gain >= min_saved
    ]
    simulated = [
        (simulate_duration(top, dict.fromkeys(group.movers, group.anchor)), group)
        for group in heapq.nlargest(_MAX_SIMULATED, groups, key=lambda group: group.gain)
    ]
    simulated.sort(key=lambda pair: (pair[0], pair[1].certainty == "possible", pair[1].anchor.start_ns))
    kept = _distinct(
        [(then, group) for then, group in simulated if top.duration_ns - then >= min_saved], top.duration_ns
    )
    return [_opportunity(group, dependencies, top.duration_ns, then) for then, group in kept]


@dataclass(frozen=True)
class _Row:
    """Nodes in the order in which they started, each to be compared with up to `window` before it.

    If `inner` is not 0, the nodes from that index on are inside one tool, and only they may move.
    """

    nodes: Sequence[TimelineNode]
    model_requests: Sequence[Span]
    window: int
    inner: int = 0


@dataclass(frozen=True, eq=False)
class _Group:
    """Nodes of a row that may all start together with the one at index `first`."""

    parent: TimelineNode
    row: _Row
    first: int
    movers: tuple[TimelineNode, ...]
    certainty: Certainty

    @property
    def anchor(self) -> TimelineNode:
        return self.row.nodes[self.first]

    @functools.cached_property
    def sequential_ns(self) -> int:
        """The time in which at least one of them ran."""
        total, until = 0, 0
        for node in (self.anchor, *self.movers):
            start = max(node.start_ns, until)
            total += max(0, node.end_ns - start)
            until = max(until, node.end_ns)
        return total

    @functools.cached_property
    def parallel_ns(self) -> int:
        return max(node.duration_ns for node in (self.anchor, *self.movers))

    @property
    def gain(self) -> int:
        return self.sequential_ns - self.parallel_ns

    @property
    def moved(self) -> set[TimelineNode]:
        """The nodes that move, by themselves or with their parents."""
        return {*self.movers, *(child for node in self.movers for child in node.children)}


def _groups_in(parent: TimelineNode, dependencies: SpanDependencies, window: int) -> Iterable[_Group]:
    """The groups among a parent's children, and those from inside one of its tools with what ran before that tool."""
    model_requests = [child.span for child in parent.children if child.span.kind == "model"]
    yield from _groups(parent, _Row(parent.children, model_requests, window), dependencies)
    for place, tool in enumerate(parent.children):
        if tool.span.kind == "tool" and tool.children and place:
            before = parent.children[max(0, place - window) : place]
            yield from _groups(
                parent, _Row([*before, *tool.children], model_requests, window, len(before)), dependencies
            )


def _groups(parent: TimelineNode, row: _Row, dependencies: SpanDependencies) -> Iterable[_Group]:
    """For each certainty and each anchor, the later nodes that could start together with the anchor."""
    movers: dict[tuple[Certainty, int], list[TimelineNode]] = {}
    last_end = list(accumulate((node.end_ns for node in row.nodes), max))
    for place in range(max(1, row.inner), len(row.nodes)):
        lowest = max(0, place - row.window)
        # The earliest start of the node, and the earliest for which that is proven.
        earliest_ns = last_end[lowest - 1] if lowest else row.nodes[0].start_ns
        earliest_proven_ns = earliest_ns
        for earlier in range(place - 1, lowest - 1, -1):
            if last_end[earlier] <= earliest_ns:
                break
            independence = dependencies.independence(row.nodes[earlier], row.nodes[place], row.model_requests)
            if independence is None:
                earliest_ns = max(earliest_ns, row.nodes[earlier].end_ns)
            elif independence.certainty == "possible":
                earliest_proven_ns = max(earliest_proven_ns, row.nodes[earlier].end_ns)
        for anchor in range((row.inner or place) - 1, lowest - 1, -1):
            start_ns = row.nodes[anchor].start_ns
            if start_ns < earliest_ns:
                break
            movers.setdefault(("possible", anchor), []).append(row.nodes[place])
            if start_ns >= earliest_proven_ns:
                movers.setdefault(("proven", anchor), []).append(row.nodes[place])
    for (certainty, first), group in movers.items():
        if certainty == "proven" or movers.get(("proven", first)) != group:
            yield _Group(parent, row, first, tuple(group), certainty)


def _distinct(simulated: Sequence[tuple[int, _Group]], now: int) -> list[tuple[int, _Group]]:
    """Leaves out groups most of whose spans are in a group that is as certain and saves about as much."""
    kept: list[tuple[int, _Group]] = []
    for then, group in sorted(simulated, key=lambda pair: pair[1].certainty == "possible"):
        min_similar = _SIMILAR_SAVING * (now - then)
        if not any(_repeats(group, other) and now - other_then >= min_similar for other_then, other in kept):
            kept.append((then, group))
    return sorted(kept, key=lambda pair: (pair[0], pair[1].certainty == "possible"))


def _repeats(group: _Group, other: _Group) -> bool:
    return other.parent is group.parent and 2 * len(group.moved & other.moved) >= len(group.moved)


def _opportunity(group: _Group, dependencies: SpanDependencies, now: int, then: int) -> ParallelismOpportunity:
    reasons: dict[IndependenceReason, None] = {}
    ahead = False
    nodes = group.row.nodes
    for node in group.movers:
        for earlier in nodes[: nodes.index(node)]:
            if earlier.end_ns > group.anchor.start_ns:
                independence = dependencies.independence(earlier, node, group.row.model_requests)
                assert independence is not None
                reasons[independence.reason] = None
                ahead = ahead or (earlier.span.kind == "model" and independence.reason != "overlapping")
    return ParallelismOpportunity(
        certainty=group.certainty,
        reasons=tuple(reasons),
        spans=tuple(node.span for node in (group.anchor, *group.movers)),
        inside=group.parent.span,
        ahead_of_model=ahead,
        sequential_ns=group.sequential_ns,
        parallel_ns=group.parallel_ns,
        trace_now_ns=now,
        trace_then_ns=then,
    )


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.1f} s" if ns >= 1e9 else f"{ns / 1e6:.0f} ms"
