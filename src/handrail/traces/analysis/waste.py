"""What was paid and waited for and led nowhere; and what was spent without anybody having held money for it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from handrail.kernel.money import ZERO, NanoUsd
from handrail.traces.model import Span

from .critical_path import self_time

Reason = Literal["abandoned", "retried", "failed", "run failed", "run refused"]
"""Left before its end; tried again; a request or call that failed; and all else that a run did that failed or was
refused. A span counts for the first of these that holds."""

# What a task that was cancelled or a stream that its reader left raises.
_ABANDONED = frozenset({"CancelledError", "GeneratorExit"})
_REFUSAL = "ceiling_"


@dataclass(frozen=True, kw_only=True)
class Wasted:
    """A step's spans that led nowhere for one reason: how many, their cost, and their own time in nanoseconds."""

    reason: Reason
    step: str
    count: int
    cost: NanoUsd
    time_ns: int


@dataclass(frozen=True, kw_only=True)
class Around:
    """Spend of one agent with one model around every ceiling: nothing was held before the request."""

    agent: str
    model: str
    count: int
    cost: NanoUsd


@dataclass(frozen=True, kw_only=True)
class Waste:
    """What led nowhere, the dearest first, out of everything: `cost` of `total_cost`, `time_ns` of `total_ns`."""

    cost: NanoUsd
    time_ns: int
    total_cost: NanoUsd
    total_ns: int
    items: tuple[Wasted, ...]
    ungoverned: tuple[Around, ...]


def waste_of(traces: Iterable[Sequence[Span]]) -> Waste:
    """What led nowhere in these traces. A span counts once; times are spans' own, and people's are left out."""
    sums: defaultdict[tuple[Reason, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    around: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    total_cost = total_ns = 0
    for spans in traces:
        own = self_time(spans)
        for span, reason in _reasons(spans):
            time_ns = own[span.span_id]
            total_cost, total_ns = total_cost + span.cost, total_ns + time_ns
            if reason is not None and (span.cost or time_ns):
                _add(sums[reason, span.name], 1, span.cost, time_ns)
            if span.held is None and span.cost > ZERO:
                _add(around[span.agent, span.model or ""], 1, span.cost)
    items = [
        Wasted(reason=reason, step=step, count=count, cost=NanoUsd(cost), time_ns=time_ns)
        for (reason, step), (count, cost, time_ns) in sums.items()
    ]
    outside = [
        Around(agent=agent, model=model, count=count, cost=NanoUsd(cost))
        for (agent, model), (count, cost) in around.items()
    ]
    return Waste(
        cost=NanoUsd(sum(item.cost for item in items)),
        time_ns=sum(item.time_ns for item in items),
        total_cost=NanoUsd(total_cost),
        total_ns=total_ns,
        items=tuple(sorted(items, key=lambda item: (-item.cost, -item.time_ns, item.reason, item.step))),
        ungoverned=tuple(sorted(outside, key=lambda each: (-each.cost, each.agent, each.model))),
    )


def _reasons(spans: Sequence[Span]) -> Iterator[tuple[Span, Reason | None]]:
    """Every span of a trace but people's time, with why it led nowhere, or None."""
    retried = {span.retry_of for span in spans if span.retry_of is not None}
    runs = _lost_runs(spans)
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


def _lost_runs(spans: Sequence[Span]) -> dict[str, Reason]:
    """By id, the runs without an answer: refused by a ceiling, or failed with nothing that fell back in its place."""
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
