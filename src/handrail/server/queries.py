"""What the pages and the API read. Every query says whose data it is after: this module is the only one that asks the
store for data of tenants, and a test goes over its calls.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection

from handrail.ceilings.ledger_queries import AccountView, spending
from handrail.evals.tenant import TENANT
from handrail.kernel.errors import NotFound
from handrail.review.approvals.model import Approval, State
from handrail.review.approvals.store import approvals_of, list_approvals, load_approval
from handrail.review.feedback import Verdict, verdicts_of
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import OutcomeView, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.runs.store.stats import PathPoint, paths_over_time
from handrail.traces.analysis.cost_drivers import Difference, Few, dearest, differences
from handrail.traces.analysis.parallelism import Finding, what_if
from handrail.traces.analysis.waste import Waste, waste_of
from handrail.traces.model import Span
from handrail.traces.store.queries import (
    LatencyPoint,
    Order,
    Place,
    SpendPoint,
    SpendRow,
    StepLatency,
    TraceCost,
    Ungoverned,
    latency_over_time,
    missing_spans,
    spend_by,
    spend_over_time,
    step_latencies,
    top_traces,
    trace_costs,
    ungoverned_spend,
)
from handrail.traces.store.spans import load_payload, load_trace
from handrail.traces.store.summaries import TraceSummary

SpendKey = Literal["tenant", "user", "agent", "model", "fingerprint", "day"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """From when to when a page looks, and how long the stretches of its charts are: an hour or a day."""

    name: str
    since: datetime
    until: datetime
    every: timedelta

    @property
    def bucket(self) -> Literal["hour", "day"]:
        """A stretch by its name."""
        return "hour" if self.every == timedelta(hours=1) else "day"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What happened in a range, over time."""

    paths: Sequence[PathPoint]
    spend: Sequence[SpendPoint]
    latency: Sequence[LatencyPoint]
    ungoverned: Sequence[Ungoverned]
    waiting: int


@dataclass(frozen=True, kw_only=True)
class TraceFound:
    """A trace; `missing` spans are named as parents and are not there."""

    summary: TraceSummary
    spans: Sequence[Span]
    missing: int


@dataclass(frozen=True, kw_only=True)
class Story:
    """All that is known of one run."""

    run: RunView
    input: Any
    outcomes: Sequence[OutcomeView]
    approvals: Sequence[Approval]
    verdicts: Sequence[Verdict]


_MOST_COMPARED = 2_000
_SAMPLE = 100


class Reads:
    """The store as a visitor sees it: one tenant's data, or everybody's where `tenant` is None."""

    def __init__(self, runtime: Runtime, tenant: str | None) -> None:
        self._runtime = runtime
        self.tenant = tenant

    async def runs(self, *, agent: str | None, limit: int, before: str | None) -> list[RunView]:
        """The newest first; `before` is the last of the page before."""
        now, tenant = self._runtime.clock.now(), self.tenant
        return await self._runtime.database.read(
            lambda conn: list_runs(conn, now, tenant=tenant, agent=agent, limit=limit, before=before)
        )

    async def story(self, run_id: str) -> Story:
        """One run, by its whole id. Raises NotFound."""
        now, tenant = self._runtime.clock.now(), self.tenant

        def query(conn: Connection) -> Story:
            run = load_run(conn, run_id, now, tenant)
            return Story(
                run=run,
                input=load_input(conn, run.run_id),
                outcomes=load_outcomes(conn, run.run_id),
                approvals=approvals_of(conn, run.run_id),
                verdicts=verdicts_of(conn, run.run_id),
            )

        story = await self._runtime.database.read(query)
        if story.run.run_id != run_id:
            raise NotFound(f"there is no run {run_id}")
        return story

    async def approvals(self, *, state: State | None, limit: int, before: str | None) -> list[Approval]:
        """The longest waiting first, the trials' left out."""
        tenant = self.tenant
        return await self._runtime.database.read(
            lambda conn: list_approvals(
                conn,
                state=state,
                tenant=tenant,
                limit=limit,
                before=before,
                hidden=() if tenant == TENANT else (TENANT,),
            )
        )

    async def approval(self, approval_id: str) -> Approval:
        """One approval, by its whole id. Raises NotFound."""
        tenant = self.tenant
        found = await self._runtime.database.read(lambda conn: load_approval(conn, approval_id, tenant))
        if found.approval_id != approval_id:
            raise NotFound(f"there is no approval {approval_id}")
        return found

    async def accounts(self, limit: int) -> list[AccountView]:
        """The current days and months, those with most spent first."""
        now, limits, tenant = self._runtime.clock.now(), self._runtime.limits, self.tenant
        return await self._runtime.database.read(
            lambda conn: spending(conn, tenant=tenant, now=now, limits=limits, limit=limit)
        )

    async def overview(self, range_: Range) -> Overview:
        """What the first page shows; `waiting` approvals are counted up to a hundred."""
        tenant, since, until, bucket = self.tenant, range_.since, range_.until, range_.bucket

        def query(conn: Connection) -> Overview:
            waiting = list_approvals(conn, state="pending", tenant=tenant, limit=100, before=None, hidden=(TENANT,))
            return Overview(
                paths=paths_over_time(conn, tenant=tenant, since=since, until=until, every=range_.every),
                spend=spend_over_time(conn, tenant=tenant, since=since, until=until, bucket=bucket),
                latency=latency_over_time(conn, tenant=tenant, since=since, until=until, bucket=bucket),
                ungoverned=ungoverned_spend(conn, tenant=tenant, since=since, until=until),
                waiting=len(waiting),
            )

        return await self._runtime.database.read(query)

    async def traces(
        self,
        range_: Range,
        *,
        order: Order,
        agent: str | None,
        user: str | None,
        text: str | None,
        limit: int,
        after: Place | None,
    ) -> list[TraceSummary]:
        """The traces with most of `order` first; `after` is the place of the last of the page before."""
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(
            lambda conn: top_traces(
                conn,
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

    async def trace(self, trace_id: str) -> TraceFound:
        """A trace, what was said in it left out. Raises NotFound."""
        tenant = self.tenant

        def query(conn: Connection) -> TraceFound:
            summary, spans = load_trace(conn, trace_id, tenant)
            return TraceFound(summary=summary, spans=spans, missing=missing_spans(conn, trace_id, tenant))

        return await self._runtime.database.read(query)

    async def steps(self, range_: Range, agent: str | None) -> list[StepLatency]:
        """How long each step took, those that took longest in all first."""
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(
            lambda conn: step_latencies(conn, tenant=tenant, since=since, until=until, agent=agent)
        )

    async def spend(self, range_: Range, key: SpendKey, limit: int) -> list[SpendRow]:
        """Who or what the money went to, the dearest first."""
        tenant, since, until = self.tenant, range_.since, range_.until
        return await self._runtime.database.read(
            lambda conn: spend_by(conn, key=key, tenant=tenant, since=since, until=until, limit=limit)
        )

    async def said(self, trace_id: str, span_id: str) -> tuple[Span, Mapping[str, Any] | None]:
        """A span and what was said in it. Raises NotFound."""
        tenant = self.tenant

        def query(conn: Connection) -> tuple[Span, Mapping[str, Any] | None]:
            _, spans = load_trace(conn, trace_id, tenant)
            span = next((span for span in spans if span.span_id == span_id), None)
            if span is None:
                raise NotFound(f"there is no span {span_id} in trace {trace_id}")
            return span, load_payload(conn, span.trace_id, span.span_id)

        return await self._runtime.database.read(query)

    async def findings(self, found: TraceFound) -> list[Finding]:
        """What of a trace could have run side by side; nothing is looked for in a very long one."""
        if len(found.spans) > _MOST_COMPARED:
            return []
        tenant, trace_id = self.tenant, found.summary.trace_id

        def query(conn: Connection) -> dict[str, Mapping[str, Any]]:
            _, spans = load_trace(conn, trace_id, tenant)
            said = {span.span_id: load_payload(conn, span.trace_id, span.span_id) for span in spans}
            return {span_id: payload for span_id, payload in said.items() if payload is not None}

        payloads = await self._runtime.database.read(query)
        return await asyncio.to_thread(what_if, found.spans, payloads)

    async def few(self, range_: Range) -> tuple[Few, list[Difference]]:
        """How few traces make most of the cost, and what sets a sample of them apart from a sample of the rest."""
        tenant, since, until = self.tenant, range_.since, range_.until

        def query(conn: Connection) -> tuple[Few, Sequence[Sequence[Span]], Sequence[Sequence[Span]]]:
            costs = list(trace_costs(conn, tenant=tenant, since=since, until=until))
            few = dearest(each.cost for each in costs)
            dear, rest = costs[: few.count], costs[few.count :]
            spans: list[Sequence[Sequence[Span]]] = [
                [load_trace(conn, each.trace_id, tenant)[1] for each in _spread(some)] for some in (dear, rest)
            ]
            return few, spans[0], spans[1]

        few, dear, rest = await self._runtime.database.read(query)
        return few, await asyncio.to_thread(differences, dear, rest)

    async def waste(self, range_: Range) -> tuple[Waste, int]:
        """What of the range's newest traces led nowhere, and how many of them were gone through."""
        tenant, since, until = self.tenant, range_.since, range_.until

        def query(conn: Connection) -> list[Sequence[Span]]:
            newest = top_traces(conn, tenant=tenant, since=since, until=until, limit=_SAMPLE)
            return [load_trace(conn, each.trace_id, tenant)[1] for each in newest if each.spans <= _MOST_COMPARED]

        found = await self._runtime.database.read(query)
        return await asyncio.to_thread(waste_of, found), len(found)


def _spread(costs: Sequence[TraceCost]) -> Sequence[TraceCost]:
    """At most `_SAMPLE` of them, from the dearest to the cheapest alike."""
    step = -(-len(costs) // _SAMPLE) or 1
    return costs[::step]
