"""The rows of the steps page: latencies beside shares of the critical path, and what could run in parallel. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from handrail.server.queries import TraceDetail
from handrail.traces.analysis.critical_path import StepShare
from handrail.traces.analysis.parallelism import ParallelismOpportunity
from handrail.traces.store.rollup_queries import StepLatency

StepOrder = Literal["total", "count", "errors", "p50", "p95", "p99", "self", "critical"]


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A step. `share` is None if no sampled trace contains the step."""

    latency: StepLatency
    share: StepShare | None


_ORDERS: Mapping[StepOrder, Callable[[StepRow], int]] = {
    "total": lambda row: row.latency.total_ns,
    "count": lambda row: row.latency.count,
    "errors": lambda row: row.latency.errors,
    "p50": lambda row: row.latency.p50_ns,
    "p95": lambda row: row.latency.p95_ns,
    "p99": lambda row: row.latency.p99_ns,
    "self": lambda row: row.share.self_ns if row.share else 0,
    "critical": lambda row: row.share.critical_ns if row.share else 0,
}


def step_rows(latencies: Iterable[StepLatency], shares: Iterable[StepShare], order: StepOrder) -> list[StepRow]:
    """A row for each step, those with most of `order` first.

    Args:
        latencies: The steps of the range.
        shares: Their part in the critical paths of a sample of traces.
        order: The column to sort by.
    """
    by_step = {(share.kind, share.name): share for share in shares}
    rows = [StepRow(latency=latency, share=by_step.get((latency.kind, latency.name))) for latency in latencies]
    return sorted(rows, key=_ORDERS[order], reverse=True)


def best_opportunities(
    by_trace: Iterable[tuple[TraceDetail, Sequence[ParallelismOpportunity]]], limit: int
) -> list[tuple[ParallelismOpportunity, TraceDetail]]:
    """What could run in parallel, each opportunity once, with the trace in which it saves most.

    Args:
        by_trace: Traces with the opportunities in each.
        limit: How many to return, those that save most.
    """
    best: dict[tuple[str, str], tuple[ParallelismOpportunity, TraceDetail]] = {}
    for trace, opportunities in by_trace:
        for opportunity in opportunities:
            key = (opportunity.names, opportunity.inside.name)
            if key not in best or opportunity.saved_ns > best[key][0].saved_ns:
                best[key] = (opportunity, trace)
    return sorted(best.values(), key=lambda pair: -pair[0].saved_ns)[:limit]
