"""Finds waste (money and time spent on spans that led to no answer) and spend that no ceiling covers."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from handrail.kernel.money import ZERO, NanoUsd
from handrail.traces.model import Span

from .critical_path import self_times

WasteReason = Literal["abandoned", "retried", "failed", "run failed", "run refused"]
"""In this order: cancelled or left unfinished; attempted again; a request or call that failed; anything else in a run
that failed or was refused. A span counts for the first reason that applies."""

# Raised in a cancelled task, and in an abandoned stream.
_ABANDONED = frozenset({"CancelledError", "GeneratorExit"})
_REFUSAL = "ceiling_"


@dataclass(frozen=True, kw_only=True)
class WasteItem:
    """A step's spans that were wasted for one reason: their number, cost, and own time in nanoseconds."""

    reason: WasteReason
    step: str
    count: int
    cost: NanoUsd
    time_ns: int


@dataclass(frozen=True, kw_only=True)
class UngovernedRequests:
    """Requests of one agent to one model for which no money was held, so that no ceiling covers them."""

    agent: str
    model: str
    count: int
    cost: NanoUsd


@dataclass(frozen=True, kw_only=True)
class WasteReport:
    """The waste, the most expensive first: `cost` out of `total_cost`, and `time_ns` out of `total_ns`."""

    cost: NanoUsd
    time_ns: int
    total_cost: NanoUsd
    total_ns: int
    items: tuple[WasteItem, ...]
    ungoverned: tuple[UngovernedRequests, ...]


def find_waste(traces: Iterable[Sequence[Span]]) -> WasteReport:
    """The waste in these traces. Each span counts once, with its own time; waiting for people is left out."""
    sums: defaultdict[tuple[WasteReason, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    ungoverned: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    total_cost = total_ns = 0
    for spans in traces:
        self_ns = self_times(spans)
        for span, reason in _reasons(spans):
            time_ns = self_ns[span.span_id]
            total_cost, total_ns = total_cost + span.cost, total_ns + time_ns
            if reason is not None and (span.cost or time_ns):
                _add(sums[reason, span.name], 1, span.cost, time_ns)
            if span.held is None and span.cost > ZERO:
                _add(ungoverned[span.agent, span.model or ""], 1, span.cost)
    items = [
        WasteItem(reason=reason, step=step, count=count, cost=NanoUsd(cost), time_ns=time_ns)
        for (reason, step), (count, cost, time_ns) in sums.items()
    ]
    requests = [
        UngovernedRequests(agent=agent, model=model, count=count, cost=NanoUsd(cost))
        for (agent, model), (count, cost) in ungoverned.items()
    ]
    return WasteReport(
        cost=NanoUsd(sum(item.cost for item in items)),
        time_ns=sum(item.time_ns for item in items),
        total_cost=NanoUsd(total_cost),
        total_ns=total_ns,
        items=tuple(sorted(items, key=lambda item: (-item.cost, -item.time_ns, item.reason, item.step))),
        ungoverned=tuple(sorted(requests, key=lambda row: (-row.cost, row.agent, row.model))),
    )


def _reasons(spans: Sequence[Span]) -> Iterator[tuple[Span, WasteReason | None]]:
    """Every span of a trace except waits, with the reason it was wasted, or None."""
    retried = {span.retry_of for span in spans if span.retry_of is not None}
    runs = _unanswered_runs(spans)
    for span in spans:
        if span.kind == "wait":
            continue
        if span.kind != "agent" and span.error_type in _ABANDONED:
            yield span, "abandoned"
        elif span.span_id in retried:
            yield span, "retried"
        elif span.kind in ("model", "tool") and span.error_type is not None:
            yield span, "failed"
        else:
            yield span, runs.get(span.run_id)


def _unanswered_runs(spans: Sequence[Span]) -> dict[str, WasteReason]:
    """The runs without an answer by id: refused by a ceiling, or failed without a fallback."""
    last: dict[str, Span] = {}
    refused, answered = set(), set()
    for span in spans:
        if not span.run_id:
            continue
        if span.kind == "agent" and (span.run_id not in last or span.start_ns > last[span.run_id].start_ns):
            last[span.run_id] = span
        if span.name == "refuse" and (span.error_type or "").startswith(_REFUSAL):
            refused.add(span.run_id)
        if span.name == "fallback" and span.error_type is None:
            answered.add(span.run_id)
    failed = {run_id for run_id, span in last.items() if span.error_type is not None} - answered
    return {**dict.fromkeys(failed, "run failed"), **dict.fromkeys(refused, "run refused")}


def _add(sums: list[int], *values: int) -> None:
    for index, value in enumerate(values):
        sums[index] += value
