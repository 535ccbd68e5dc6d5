"""The queries of the pages and the API, over one tenant's data or every tenant's.

Every query names the tenant. Besides `eval_queries`, this is the only module of the server that reads the store for
data of tenants, and a test checks each of its calls.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from handrail.ceilings.ledger_queries import AccountView, load_spending
from handrail.evals.spec import EVALS_TENANT
from handrail.kernel.db.operation import operation
from handrail.kernel.errors import NotFound
from handrail.review.approvals.labels import is_uncertain
from handrail.review.approvals.model import Approval, StateFilter
from handrail.review.approvals.queries import list_approvals, load_approval, load_approvals
from handrail.review.feedback import Feedback, load_feedback
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import OutcomeView, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.runs.store.stats import PathPoint, paths_over_time
from handrail.traces.analysis.cost_drivers import CostConcentration, CostDriver
from handrail.traces.analysis.parallelism import ParallelismOpportunity, find_parallelism
from handrail.traces.analysis.waste import WasteReport, find_waste
from handrail.traces.model import Span
from handrail.traces.reports import MAX_TRACE_SPANS, load_cost_sample, load_latest_traces
from handrail.traces.store.rollup_queries import (
    LatencyPoint,
    SpendKey,
    SpendPoint,
    SpendRow,
    StepLatency,
    UngovernedSpend,
    latency_over_time,
    spend_by,
    spend_over_time,
    step_latencies,
    ungoverned_spend,
)
from handrail.traces.store.spans import load_payload, load_payloads, load_trace
from handrail.traces.store.summaries import TraceSummary
from handrail.traces.store.trace_queries import (
    TraceCursor,
    TraceOrder,
    missing_spans,
    top_traces,
)

from .time_ranges import TimeRange


@dataclass(frozen=True, kw_only=True)
class OverviewData:
    """The figures of a time range.

    Attributes:
        waiting: The approvals that need a person, counted up to a hundred.
        uncertain: Those of them whose action may have happened.
    """

    paths: Sequence[PathPoint]
    spend: Sequence[SpendPoint]
    latency: Sequence[LatencyPoint]
    ungoverned: Sequence[UngovernedSpend]
    waiting: int
    uncertain: int


@dataclass(frozen=True, kw_only=True)
class TraceDetail:
    """A trace and its spans, without their payloads.

    Attributes:
        missing: How many spans are named as parents but are not in the store.
    """

    summary: TraceSummary
    spans: Sequence[Span]
    missing: int


@dataclass(frozen=True, kw_only=True)
class RunDetail:
    """A run with all that is stored of it; outcomes are in order, feedback is newest first."""

    run: RunView
    input: Any
    outcomes: Sequence[OutcomeView]
    approvals: Sequence[Approval]
    feedback: Sequence[Feedback]


class Queries:
    """The store as a principal sees it: one tenant's data, or everybody's if `tenant` is None."""

    def __init__(self, runtime: Runtime, tenant: str | None) -> None:
        self._runtime = runtime
        self.tenant = tenant

    async def runs(self, *, agent: str | None, limit: int, before: str | None) -> list[RunView]:
        """The newest runs first; `before` is the id of the previous page's last run."""
        now, tenant = self._runtime.clock.now(), self.tenant
        return await self._runtime.database.read(list_runs(now, tenant=tenant, agent=agent, limit=limit, before=before))

    async def run(self, run_id: str) -> RunDetail:
        """One run, by its full id. Raises NotFound."""
        now, tenant = self._runtime.clock.now(), self.tenant
        detail = await self._runtime.database.read(_load_run_detail(run_id, now, tenant))
        # The store also finds a run by the beginning of its id, which is for the terminal only.
        if detail.run.run_id != run_id:
            raise NotFound(f"there is no run {run_id}")
        return detail

    async def approvals(self, *, state: StateFilter | None, limit: int, before: str | None) -> list[Approval]:
        """Approvals as they stand now, in the order of `list_approvals`, without those of eval trials."""
        now, tenant = self._runtime.clock.now(), self.tenant
        hidden = () if tenant == EVALS_TENANT else (EVALS_TENANT,)
        return await self._runtime.database.read(
            list_approvals(now, state=state, tenant=tenant, limit=limit, before=before, hidden=hidden)
        )

    async def approval(self, approval_id: str) -> Approval:
        """One approval as it stands now, by its full id. Raises NotFound."""
        now, tenant = self._runtime.clock.now(), self.tenant
        approval = await self._runtime.database.read(load_approval(approval_id, now, tenant))
        if approval.approval_id != approval_id:
            raise NotFound(f"there is no approval {approval_id}")
        return approval

    async def accounts(self, limit: int) -> list[AccountView]:
        """The spending of the current days and months, the highest first."""
        now, limits, tenant = self._runtime.clock.now(), self._runtime.limits, self.tenant
        return await self._runtime.database.read(load_spending(tenant=tenant, now=now, limits=limits, limit=limit))

    async def overview(self, range_: TimeRange) -> OverviewData:
        """The figures of the overview page."""
        now, tenant = self._runtime.clock.now(), self.tenant
        return await self._runtime.database.read(_load_overview(range_, now, tenant))

    async def traces(
        self,
        range_: TimeRange,
        *,
        order: TraceOrder,
        agent: str | None,
        user: str | None,
        text: str | None,
        limit: int,
        after: TraceCursor | None,
    ) -> list[TraceSummary]:
        """The traces of a range.

        Args:
            range_: When they started.
            order: What comes first: the newest, most expensive, slowest, or those with most errors.
            agent: Only those of this agent.
            user: Only those of this user.
            text: Only those with this in their name, or at the beginning of their id.
            limit: How many at most.
            after: The cursor of the previous page's last trace.
        """
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(
            top_traces(
                tenant=tenant,
                since=since,
                until=until,
                order=order,
                agent=agent,
                user=user,
                text=text,
                limit=limit,
                after=after,
            )
        )

    async def trace(self, trace_id: str) -> TraceDetail:
        """One trace. Raises NotFound."""
        tenant = self.tenant
        return await self._runtime.database.read(_load_trace_detail(trace_id, tenant))

    async def steps(self, range_: TimeRange, agent: str | None) -> list[StepLatency]:
        """The latency of each step, the highest total first."""
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(step_latencies(tenant=tenant, since=since, until=until, agent=agent))

    async def spend(self, range_: TimeRange, key: SpendKey, limit: int) -> list[SpendRow]:
        """The spend by `key`, the highest first."""
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(
            spend_by(key=key, tenant=tenant, since=since, until=until, limit=limit)
        )

    async def span(self, trace_id: str, span_id: str) -> tuple[Span, Mapping[str, Any] | None]:
        """A span and its payload, if that is stored. Raises NotFound."""
        tenant = self.tenant
        return await self._runtime.database.read(_load_span(trace_id, span_id, tenant))

    async def parallelism(self, trace: TraceDetail) -> list[ParallelismOpportunity]:
        """What in a trace could have run in parallel; nothing for a very long trace, which is not analysed."""
        if len(trace.spans) > MAX_TRACE_SPANS:
            return []
        tenant = self.tenant
        payloads = await self._runtime.database.read(load_payloads(trace.summary.trace_id, tenant))
        return await asyncio.to_thread(find_parallelism, trace.spans, payloads)

    async def cost_concentration(self, range_: TimeRange) -> tuple[CostConcentration, list[CostDriver]]:
        """How few traces make up most of the cost, and what sets a sample of them apart from a sample of the rest."""
        tenant, since, until = self.tenant, range_.since, range_.until
        sample = await self._runtime.database.read(load_cost_sample(tenant=tenant, since=since, until=until))
        return sample.concentration, await asyncio.to_thread(sample.drivers)

    async def waste(self, range_: TimeRange) -> tuple[WasteReport, int]:
        """The waste in the latest traces of a range, and how many traces that were."""
        tenant, since, until = self.tenant, range_.since, range_.until
        traces = await self._runtime.database.read(load_latest_traces(tenant=tenant, since=since, until=until))
        return await asyncio.to_thread(find_waste, traces), len(traces)


@operation
def _load_run_detail(conn: Connection, run_id: str, now: datetime, tenant: str | None) -> RunDetail:
    run = load_run(run_id, now, tenant)(conn)
    return RunDetail(
        run=run,
        input=load_input(run.run_id)(conn),
        outcomes=load_outcomes(run.run_id)(conn),
        approvals=load_approvals(run.run_id, now)(conn),
        feedback=load_feedback(run.run_id)(conn),
    )


@operation
def _load_overview(conn: Connection, range_: TimeRange, now: datetime, tenant: str | None) -> OverviewData:
    since, until, bucket = range_.since, range_.until, range_.bucket
    waiting = list_approvals(now, state="open", tenant=tenant, limit=100, before=None, hidden=(EVALS_TENANT,))(conn)
    return OverviewData(
        paths=paths_over_time(tenant=tenant, since=since, until=until, interval=range_.interval)(conn),
        spend=spend_over_time(tenant=tenant, since=since, until=until, bucket=bucket)(conn),
        latency=latency_over_time(tenant=tenant, since=since, until=until, bucket=bucket)(conn),
        ungoverned=ungoverned_spend(tenant=tenant, since=since, until=until)(conn),
        waiting=len(waiting),
        uncertain=sum(map(is_uncertain, waiting)),
    )


@operation
def _load_trace_detail(conn: Connection, trace_id: str, tenant: str | None) -> TraceDetail:
    summary, spans = load_trace(trace_id, tenant)(conn)
    return TraceDetail(summary=summary, spans=spans, missing=missing_spans(trace_id, tenant)(conn))


@operation
def _load_span(
    conn: Connection, trace_id: str, span_id: str, tenant: str | None
) -> tuple[Span, Mapping[str, Any] | None]:
    _, spans = load_trace(trace_id, tenant)(conn)
    span = next((span for span in spans if span.span_id == span_id), None)
    if span is None:
        raise NotFound(f"there is no span {span_id} in trace {trace_id}")
    return span, load_payload(span.trace_id, span.span_id)(conn)
