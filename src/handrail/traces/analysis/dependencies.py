"""Whether a span could have begun without an earlier one, by what was recorded of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from handrail.traces import semconv
from handrail.traces.model import Span

from .layout import Part
from .value_flow import UNRECORDED, Said, Values, asked_for, read_said

Certainty = Literal["proven", "possible"]
"""Proven: from what was recorded of arguments and results. Possible: nothing that was recorded speaks against it."""

Because = Literal["asked together", "apart", "at once", "known before", "alike", "unrecorded", "writes", "undeclared"]

EFFECT = "handrail.tool.effect"
_ROUND = "handrail.run.round"
_MOVABLE = frozenset({"agent", "tool", "step"})


@dataclass(frozen=True, slots=True)
class Free:
    """A later span needs nothing from an earlier one, and why that is thought."""

    because: Because

    @property
    def certainty(self) -> Certainty:
        return "proven" if self.because in ("asked together", "apart", "at once") else "possible"


class Bonds:
    """What ties the spans of one trace, by their places in its timeline and what was said in them."""

    def __init__(self, top: Part, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """`payloads` by span id, as they are stored; spans that are not in it count as not recorded."""
        self._payloads = payloads
        self._said: dict[str, Said] = {}
        self._asked: dict[str, frozenset[str]] = {}
        self._tools: dict[Part, Part] = {}
        waiting = [top]
        while waiting:
            part = waiting.pop()
            waiting.extend(part.children)
            tool = part if part.span.kind == "tool" else self._tools.get(part)
            # An agent inside a tool has tools of its own.
            if tool is not None:
                self._tools.update((child, tool) for child in part.children if child.span.kind == "step")

    def free(self, earlier: Part, later: Part, asking: Sequence[Span]) -> Free | None:
        """Why `later` could have begun without waiting for `earlier`; None where it needed it, or may have.

        `asking` are the model requests among their siblings. A value that came out of `earlier` and went into `later`
        ties them, unless `earlier` was given it too: then it was there before.
        """
        before, after = earlier.span, later.span
        if not self._may_move(later) or before.kind == "wait":
            return None
        if before.end_ns > after.start_ns:
            return Free("at once")
        effects = {self.effect(earlier), self.effect(later)}
        if "irreversible" in effects or before.error_type is not None:
            return None
        gave, given, shared = self._exchanged(earlier, later)
        before_it = self.said(before).given
        if any(before_it is None or not before_it.holds(value) for value in shared):
            return None
        if self._asked_together(before, after, asking):
            return Free("writes" if "writes" in effects else "asked together")
        if before.kind == "model" and (given is None or gave is None):
            # The model wrote the arguments; without them, or its answer, they may be made of anything.
            return None
        because = _because(given, gave, shared)
        if because == "apart" and self.said(after).opaque:
            because = "unrecorded"
        if because == "apart" and "writes" in effects:
            because = "writes"
        if because == "apart" and before.kind == "model" and self.effect(later) != "reads":
            because = "undeclared"
        return Free(because)

    def effect(self, part: Part) -> str | None:
        """What a tool does to the world, as declared; a step's is that of the tool that it is inside."""
        tool = part if part.span.kind == "tool" else self._tools.get(part)
        return None if tool is None else str(tool.span.attributes.get(EFFECT) or "") or None

    def said(self, span: Span) -> Said:
        """What went into a span and what came out."""
        found = self._said.get(span.span_id)
        if found is None:
            payload = self._payloads.get(span.span_id)
            found = self._said[span.span_id] = UNRECORDED if payload is None else read_said(payload)
        return found

    def _may_move(self, later: Part) -> bool:
        span = later.span
        again = span.retry_of is not None or span.attempt > 1 or (span.attributes.get(_ROUND) or 1) != 1
        return span.kind in _MOVABLE and not again and self.effect(later) != "irreversible"

    def _exchanged(self, earlier: Part, later: Part) -> tuple[Values | None, Values | None, set[str]]:
        """What came out of the earlier, what went into the later, and what is in both."""
        gave, given = self.said(earlier.span).gave, self.said(later.span).given
        tool = self._tools.get(later)
        if earlier.span.kind == "model" and gave is None and tool is not None:
            # What a tool was called with is what the model said of it.
            gave = self.said(tool.span).given
        return gave, given, set() if gave is None or given is None else gave.shared(given)

    def _asked_together(self, before: Span, after: Span, asking: Sequence[Span]) -> bool:
        if before.kind != "tool" or after.kind != "tool":
            return False
        calls = {str(span.attributes.get(semconv.TOOL_CALL_ID) or "") for span in (before, after)}
        if len(calls) < 2 or "" in calls:
            return False
        requests = [span for span in asking if span.end_ns <= before.start_ns]
        return bool(requests) and calls <= self._calls_of(requests[-1])

    def _calls_of(self, request: Span) -> frozenset[str]:
        if request.span_id not in self._asked:
            self._asked[request.span_id] = asked_for(self._payloads.get(request.span_id, {}))
        return self._asked[request.span_id]


def _because(given: Values | None, gave: Values | None, shared: set[str]) -> Because:
    if given is None:
        return "unrecorded"
    if not given.whole and not given.short:
        return "apart"
    if gave is None:
        return "unrecorded"
    if shared:
        return "known before"
    return "alike" if given.short & gave.short else "apart"
