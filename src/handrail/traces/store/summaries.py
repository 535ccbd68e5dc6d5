"""Trace summaries: one row for each trace of each tenant, with its cost, duration, user and agent.

Spans of a trace arrive in any order, and often in several requests: each adds its numbers to the summary, extends its
start and end, and sets its name if it is a better head of the trace than the previous one. As with rollups, only newly
inserted spans may be added.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Row, String, Table, case

from handrail.kernel.db.engine import insert
from handrail.kernel.db.schema import metadata
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span

from .bulk import RowValues, write_rows

traces = Table(
    "traces",
    metadata,
    Column("trace_id", String, primary_key=True),
    Column("tenant", String, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("spans", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("name", String, nullable=False),
    Column("conversation_id", String),
    Column("fingerprint", String),
    Column("duration_ns", BigInteger, nullable=False),
    Column("head", String, nullable=False),
    # One for each order of a list, for one tenant and for all. Each has the start, so that it can limit a range alone.
    Index("ix_traces_start_ns", "start_ns"),
    Index("ix_traces_tenant_start_ns", "tenant", "start_ns"),
    *(Index(f"ix_traces_{order}_start_ns", order, "start_ns") for order in ("cost", "duration_ns", "errors")),
    *(
        Index(f"ix_traces_tenant_{order}_start_ns", "tenant", order, "start_ns")
        for order in ("cost", "duration_ns", "errors")
    ),
    Index("ix_traces_tenant_user_id_start_ns", "tenant", "user_id", "start_ns"),
)


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """One tenant's part of one trace; times are nanoseconds since 1970.

    Name, user, agent, conversation and fingerprint are those of the trace's head: the first span without a parent,
    preferably one that names its agent.
    """

    trace_id: str
    tenant: str
    user: str
    agent: str
    start_ns: int
    end_ns: int
    spans: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost: NanoUsd
    name: str
    conversation_id: str | None
    fingerprint: str | None

    @property
    def duration_ns(self) -> int:
        """From the start of its first span to the end of its last."""
        return self.end_ns - self.start_ns


def summarise(spans: Sequence[Span]) -> TraceSummary:
    """The summary of spans of one trace; at least one is required."""
    head = min(spans, key=_head_rank)
    return TraceSummary(
        trace_id=head.trace_id,
        tenant=head.tenant,
        user=head.user,
        agent=head.agent,
        start_ns=min(span.start_ns for span in spans),
        end_ns=max(span.end_ns for span in spans),
        spans=len(spans),
        errors=sum(span.error_type is not None for span in spans),
        input_tokens=sum(span.usage.input for span in spans),
        output_tokens=sum(span.usage.output for span in spans),
        cost=NanoUsd(sum(span.cost for span in spans)),
        name=head.name,
        conversation_id=head.conversation_id,
        fingerprint=head.fingerprint,
    )


def summary_rows(new_spans: Iterable[Span]) -> list[RowValues]:
    """The rows that newly inserted spans add: one for each trace of each tenant, in the order of their keys."""
    parts: dict[tuple[str, str], list[Span]] = {}
    for span in new_spans:
        parts.setdefault((span.trace_id, span.tenant), []).append(span)
    return [_row(parts[key]) for key in sorted(parts)]


def add_summaries(conn: Connection, rows: Sequence[RowValues]) -> None:
    """Adds rows to the summaries, or inserts those that are not there yet."""
    write_rows(conn, _upsert(conn.dialect.name), rows)


def summary_from_row(row: Row[Any]) -> TraceSummary:
    """A row of `traces` as a summary."""
    return TraceSummary(
        trace_id=row.trace_id,
        tenant=row.tenant,
        user=row.user_id,
        agent=row.agent,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        spans=row.spans,
        errors=row.errors,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost=NanoUsd(row.cost),
        name=row.name,
        conversation_id=row.conversation_id,
        fingerprint=row.fingerprint,
    )


def _head_rank(span: Span) -> str:
    """A sort key: the best head of a trace comes first. It is stored, to be compared with those of later spans."""
    return f"{int(not span.agent)}{int(span.parent_id is not None)}{span.start_ns:020d}{span.span_id}"


def _row(spans: Sequence[Span]) -> RowValues:
    summary = summarise(spans)
    return (
        summary.trace_id,
        summary.tenant,
        summary.user,
        summary.agent,
        summary.start_ns,
        summary.end_ns,
        summary.spans,
        summary.errors,
        summary.input_tokens,
        summary.output_tokens,
        summary.cost,
        summary.name,
        summary.conversation_id,
        summary.fingerprint,
        summary.duration_ns,
        min(_head_rank(span) for span in spans),
    )


@functools.cache
def _upsert(dialect: str) -> Any:
    statement = insert(dialect, traces)
    old, new = traces.c, statement.excluded
    is_better_head = new.head < old.head
    # Two-argument MIN and MAX are SQLite's, LEAST and GREATEST Postgres's; CASE is both's.
    start = case((new.start_ns < old.start_ns, new.start_ns), else_=old.start_ns)
    end = case((new.end_ns > old.end_ns, new.end_ns), else_=old.end_ns)
    changes: dict[str, Any] = {
        **{name: old[name] + new[name] for name in ("spans", "errors", "input_tokens", "output_tokens", "cost")},
        **{
            name: case((is_better_head, new[name]), else_=old[name])
            for name in ("user_id", "agent", "name", "conversation_id", "fingerprint", "head")
        },
        "start_ns": start,
        "end_ns": end,
        "duration_ns": end - start,
    }
    return statement.on_conflict_do_update(index_elements=["trace_id", "tenant"], set_=changes)
