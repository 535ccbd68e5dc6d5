"""Decides whether a span could have started before an earlier one ended, from their recorded inputs and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from handrail.traces import semconv
from handrail.traces.model import Span

from .timeline import TimelineNode
from .value_flow import NOT_RECORDED, SpanValues, ValueSet, requested_tool_calls, span_values

Certainty = Literal["proven", "possible"]
"""Proven: it follows from the recorded arguments and results. Possible: nothing in the record contradicts it."""

IndependenceReason = Literal[
    "requested together",
    "no shared values",
    "overlapping",
    "known before",
    "short match",
    "not recorded",
    "writes",
    "effect undeclared",
]
_PROVEN: frozenset[IndependenceReason] = frozenset({"requested together", "no shared values", "overlapping"})

EFFECT = "handrail.tool.effect"
_ROUND = "handrail.run.round"
_MOVABLE = frozenset({"agent", "tool", "step"})


@dataclass(frozen=True, slots=True)
class Independence:
    """A later span needs nothing from an earlier one, for this reason."""

    reason: IndependenceReason

    @property
    def certainty(self) -> Certainty:
        """How far the reason can be trusted."""
        return "proven" if self.reason in _PROVEN else "possible"


class SpanDependencies:
    """The dependencies between spans of one trace."""

    def __init__(self, top: TimelineNode, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Args:
            top: The trace.
            payloads: By span id, as they are stored; the values of a span without one count as not recorded.
        """
        self._payloads = payloads
        self._values: dict[str, SpanValues] = {}
        self._requested: dict[str, frozenset[str]] = {}
        self._tools: dict[TimelineNode, TimelineNode] = {}
        """The tool that each step is inside."""
        pending = [top]
        while pending:
            node = pending.pop()
            pending.extend(node.children)
            tool = node if node.span.kind == "tool" else self._tools.get(node)
            # Only steps: an agent inside a tool calls tools of its own.
            if tool is not None:
                self._tools.update((child, tool) for child in node.children if child.span.kind == "step")

    def independence(
        self, earlier: TimelineNode, later: TimelineNode, model_requests: Sequence[Span]
    ) -> Independence | None:
        """Why `later` could have started without waiting for `earlier`; None if it depends on it, or may depend.

        A value that came out of `earlier` and went into `later` makes `later` dependent, unless the value also went
        into `earlier`, so that it was available before.

        Args:
            earlier: A node that started before `later`, a sibling of it or of the tool that contains it.
            later: The node that would start earlier.
            model_requests: The model requests among their siblings.
        """
        before, after = earlier.span, later.span
        if not self._movable(later) or before.kind == "wait":
            return None
        if before.end_ns > after.start_ns:
            return Independence("overlapping")
        effects = {self.effect(earlier), self.effect(later)}
        if "irreversible" in effects or before.error_type is not None:
            return None
        outputs, inputs, shared = self._exchanged(earlier, later)
        inputs_before = self.values(before).inputs
        if any(inputs_before is None or not inputs_before.contains(value) for value in shared):
            return None
        if self._requested_together(before, after, model_requests):
            return Independence("writes" if "writes" in effects else "requested together")
        if before.kind == "model" and (inputs is None or outputs is None):
            # The model wrote the arguments: unless both are recorded, they may be derived from its response.
            return None
        reason = _reason(inputs, outputs, shared)
        if reason == "no shared values" and self.values(after).opaque:
            reason = "not recorded"
        if reason == "no shared values" and "writes" in effects:
            reason = "writes"
        if reason == "no shared values" and before.kind == "model" and self.effect(later) != "reads":
            reason = "effect undeclared"
        return Independence(reason)

    def effect(self, node: TimelineNode) -> str | None:
        """The declared effect of a tool; for a step, that of the tool that contains it."""
        tool = node if node.span.kind == "tool" else self._tools.get(node)
        return None if tool is None else str(tool.span.attributes.get(EFFECT) or "") or None

    def values(self, span: Span) -> SpanValues:
        """The values that went into a span and came out of it."""
        values = self._values.get(span.span_id)
        if values is None:
            payload = self._payloads.get(span.span_id)
            values = self._values[span.span_id] = NOT_RECORDED if payload is None else span_values(payload)
        return values

    def _movable(self, later: TimelineNode) -> bool:
        span = later.span
        repeated = span.retry_of is not None or span.attempt > 1 or (span.attributes.get(_ROUND) or 1) != 1
        return span.kind in _MOVABLE and not repeated and self.effect(later) != "irreversible"

    def _exchanged(
        self, earlier: TimelineNode, later: TimelineNode
    ) -> tuple[ValueSet | None, ValueSet | None, set[str]]:
        """The outputs of the earlier span, the inputs of the later one, and what is in both."""
        outputs, inputs = self.values(earlier.span).outputs, self.values(later.span).inputs
        tool = self._tools.get(later)
        if earlier.span.kind == "model" and outputs is None and tool is not None:
            # A tool receives nothing of the model's response except the arguments it was called with.
            outputs = self.values(tool.span).inputs
        return outputs, inputs, set() if outputs is None or inputs is None else outputs.shared(inputs)

    def _requested_together(self, before: Span, after: Span, model_requests: Sequence[Span]) -> bool:
        """Whether the latest model response before both tool calls asked for both of them."""
        if before.kind != "tool" or after.kind != "tool":
            return False
        calls = {str(span.attributes.get(semconv.TOOL_CALL_ID) or "") for span in (before, after)}
        if len(calls) < 2 or "" in calls:
            return False
        requests = [span for span in model_requests if span.end_ns <= before.start_ns]
        return bool(requests) and calls <= self._calls_of(requests[-1])

    def _calls_of(self, request: Span) -> frozenset[str]:
        if request.span_id not in self._requested:
            self._requested[request.span_id] = requested_tool_calls(self._payloads.get(request.span_id, {}))
        return self._requested[request.span_id]


def _reason(inputs: ValueSet | None, outputs: ValueSet | None, shared: set[str]) -> IndependenceReason:
    if inputs is None:
        return "not recorded"
    if not inputs.whole and not inputs.short:
        return "no shared values"
    if outputs is None:
        return "not recorded"
    if shared:
        return "known before"
    return "short match" if inputs.short & outputs.short else "no shared values"
