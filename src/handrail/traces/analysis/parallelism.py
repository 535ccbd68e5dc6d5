"""What could have run side by side, and how long the trace would then have taken.

Looked for among the spans of one parent, and among the steps inside a tool together with what ran before the tool: a
look-up that needs nothing from the model may begin before the model has asked for it.
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

from .dependencies import Because, Bonds, Certainty
from .layout import Part, every_part, timeline
from .simulation import replayed

COMPARED = 200_000
"""About how many pairs of spans of one trace are compared: in a long row, each with fewer of those before it."""
WORTH = Fraction(1, 100)
"""The least part of a trace's time that a finding saves."""
_TRIED = 24
"""How many changes to one trace are replayed: those that save most where they stand."""
_AS_GOOD = Fraction(9, 10)

_WHY: Mapping[Because, str] = {
    "asked together": "the model asked for them in one message",
    "apart": "nothing that an earlier one gave back is in the arguments of a later one",
    "at once": "some of them ran at once already",
    "known before": "what they share was there before the first of them",
    "alike": "a short value is in what one gave back and in what another was given, perhaps by chance",
    "unrecorded": "nothing speaks against it, but not all that they were given and gave back is recorded",
    "writes": "one of them changes something, so their order may matter",
    "undeclared": "the tool does not declare that it only reads",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Spans that ran one after the other and could have begun together, with the first of them.

    `inside` is what they are all inside of. Times are nanoseconds: of the spans alone now (`now_ns`) and side by side,
    and of the whole trace now and then. Findings about the same spans do not add up.
    """

    certainty: Certainty
    because: tuple[Because, ...]
    spans: tuple[Span, ...]
    inside: Span
    ahead_of_model: bool
    """They would begin before the model asks for them: worth it where it nearly always does."""
    now_ns: int
    side_by_side_ns: int
    trace_now_ns: int
    trace_then_ns: int

    @property
    def saved_ns(self) -> int:
        """What the whole trace gains."""
        return self.trace_now_ns - self.trace_then_ns

    @property
    def names(self) -> str:
        """The spans by name, as a sentence has them."""
        counted = Counter(span.name for span in self.spans)
        named = [name if count == 1 else f"{name} ({count} times)" for name, count in counted.items()]
        return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"

    def __str__(self) -> str:
        reasons = "; ".join(_WHY[each] for each in self.because)
        ahead = " They would begin before the model asks: worth it where it nearly always does." * self.ahead_of_model
        return (
            f"{self.names} ran one after the other in {self.inside.name}: {_seconds(self.now_ns)}; side by side "
            f"{_seconds(self.side_by_side_ns)}. The trace would take {_seconds(self.trace_then_ns)} instead of "
            f"{_seconds(self.trace_now_ns)}. {self.certainty.capitalize()}: {reasons}.{ahead}"
        )


def what_if(spans: Sequence[Span], payloads: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """The findings in one trace, those that save most first; `payloads` by span id, as far as they are at hand.

    Never claims that spans are independent where a value that came out of one went into a later one: any text of more
    than 3 characters, any number of 3 digits or more.
    """
    top = timeline(spans)
    if top is None or not top.duration_ns:
        return []
    bonds = Bonds(top, payloads)
    worth = top.duration_ns * WORTH
    back = max(16, COMPARED // len(spans))
    groups = [group for parent in every_part(top) for group in _groups_in(parent, bonds, back) if group.gain >= worth]
    tried = [
        (replayed(top, dict.fromkeys(group.movers, group.anchor)), group)
        for group in heapq.nlargest(_TRIED, groups, key=lambda group: group.gain)
    ]
    tried.sort(key=lambda each: (each[0], each[1].certainty == "possible", each[1].anchor.start_ns))
    kept = _distinct([(then, group) for then, group in tried if top.duration_ns - then >= worth], top.duration_ns)
    return [_finding(group, bonds, top.duration_ns, then) for then, group in kept]


@dataclass(frozen=True)
class _Row:
    """Parts in the order they began, each to be compared with up to `back` before it.

    From `inner` on, where that is not 0, they are what is inside one tool: only that moves, to what was before it.
    """

    parts: Sequence[Part]
    asking: Sequence[Span]
    back: int
    inner: int = 0


@dataclass(frozen=True, eq=False)
class _Group:
    """Parts of a row that may all begin with the one in place `first`."""

    parent: Part
    row: _Row
    first: int
    movers: tuple[Part, ...]
    certainty: Certainty

    @property
    def anchor(self) -> Part:
        return self.row.parts[self.first]

    @functools.cached_property
    def now_ns(self) -> int:
        """The time in which at least one of them ran."""
        total, until = 0, 0
        for part in (self.anchor, *self.movers):
            start = max(part.start_ns, until)
            total += max(0, part.end_ns - start)
            until = max(until, part.end_ns)
        return total

    @functools.cached_property
    def side_by_side_ns(self) -> int:
        return max(part.duration_ns for part in (self.anchor, *self.movers))

    @property
    def gain(self) -> int:
        return self.now_ns - self.side_by_side_ns

    @property
    def touched(self) -> set[Part]:
        """The parts that move, of their own or with their parents."""
        return {*self.movers, *(child for part in self.movers for child in part.children)}


def _groups_in(parent: Part, bonds: Bonds, back: int) -> Iterable[_Group]:
    """The groups among a parent's children, and those that reach from inside one of its tools to what ran before it."""
    asking = [child.span for child in parent.children if child.span.kind == "model"]
    yield from _groups(parent, _Row(parent.children, asking, back), bonds)
    for place, tool in enumerate(parent.children):
        if tool.span.kind == "tool" and tool.children and place:
            before = parent.children[max(0, place - back) : place]
            yield from _groups(parent, _Row([*before, *tool.children], asking, back, len(before)), bonds)


def _groups(parent: Part, row: _Row, bonds: Bonds) -> Iterable[_Group]:
    """For each certainty and each anchor, those after it that may begin with it."""
    movers: dict[tuple[Certainty, int], list[Part]] = {}
    last_end = list(accumulate((part.end_ns for part in row.parts), max))
    for place in range(max(1, row.inner), len(row.parts)):
        lowest = max(0, place - row.back)
        needed = last_end[lowest - 1] if lowest else row.parts[0].start_ns
        unsure = needed
        for earlier in range(place - 1, lowest - 1, -1):
            if last_end[earlier] <= needed:
                break
            free = bonds.free(row.parts[earlier], row.parts[place], row.asking)
            if free is None:
                needed = max(needed, row.parts[earlier].end_ns)
            elif free.certainty == "possible":
                unsure = max(unsure, row.parts[earlier].end_ns)
        for anchor in range((row.inner or place) - 1, lowest - 1, -1):
            start = row.parts[anchor].start_ns
            if start < needed:
                break
            movers.setdefault(("possible", anchor), []).append(row.parts[place])
            if start >= unsure:
                movers.setdefault(("proven", anchor), []).append(row.parts[place])
    for (certainty, first), found in movers.items():
        if certainty == "proven" or movers.get(("proven", first)) != found:
            yield _Group(parent, row, first, tuple(found), certainty)


def _distinct(tried: Sequence[tuple[int, _Group]], now: int) -> list[tuple[int, _Group]]:
    """Without those that say little new: most of their spans are in one that is as sure and saves about as much."""
    kept: list[tuple[int, _Group]] = []
    for then, group in sorted(tried, key=lambda each: each[1].certainty == "possible"):
        if not any(_repeats(group, other) and now - less >= _AS_GOOD * (now - then) for less, other in kept):
            kept.append((then, group))
    return sorted(kept, key=lambda each: (each[0], each[1].certainty == "possible"))


def _repeats(group: _Group, other: _Group) -> bool:
    return other.parent is group.parent and 2 * len(group.touched & other.touched) >= len(group.touched)


def _finding(group: _Group, bonds: Bonds, now: int, then: int) -> Finding:
    because: dict[Because, None] = {}
    ahead = False
    parts = group.row.parts
    for part in group.movers:
        for earlier in parts[: parts.index(part)]:
            if earlier.end_ns > group.anchor.start_ns:
                free = bonds.free(earlier, part, group.row.asking)
                assert free is not None
                because[free.because] = None
                ahead = ahead or (earlier.span.kind == "model" and free.because != "at once")
    return Finding(
        certainty=group.certainty,
        because=tuple(because),
        spans=tuple(part.span for part in (group.anchor, *group.movers)),
        inside=group.parent.span,
        ahead_of_model=ahead,
        now_ns=group.now_ns,
        side_by_side_ns=group.side_by_side_ns,
        trace_now_ns=now,
        trace_then_ns=then,
    )


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.1f} s" if ns >= 1e9 else f"{ns / 1e6:.0f} ms"
