"""One row for each trace of each tenant: what it cost, how long it took, whose it was."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, String, Table, case
from sqlalchemy import Row as Found

from handrail.kernel.db.engine import insert
from handrail.kernel.db.schema import metadata
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span

from .bulk import Values, write_rows

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
    # Each order that a list can have, for one tenant and for all, with the start so that ranges are cut in the index.
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
    """One tenant's part of one trace at a glance; times are nanoseconds since 1970.

    Name, user, agent, conversation and fingerprint are those of the span that speaks for the trace: the first without a
    parent, of those that name their agent where any does.
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
        """From the begin of its first span to the end of its last."""
        return self.end_ns - self.start_ns


def summarise(found: Sequence[Span]) -> TraceSummary:
    """The summary of some spans of one trace, at least one."""
    head = min(found, key=_headship)
    return TraceSummary(
        trace_id=head.trace_id,
        tenant=head.tenant,
        user=head.user,
        agent=head.agent,
        start_ns=min(span.start_ns for span in found),
        end_ns=max(span.end_ns for span in found),
        spans=len(found),
        errors=sum(span.error_type is not None for span in found),
        input_tokens=sum(span.usage.input for span in found),
        output_tokens=sum(span.usage.output for span in found),
        cost=NanoUsd(sum(span.cost for span in found)),
        name=head.name,
        conversation_id=head.conversation_id,
        fingerprint=head.fingerprint,
    )


def summary_rows(found: Iterable[Span]) -> list[Values]:
    """What spans add to the summaries: a row for each trace of each tenant, in the order of their keys."""
    parts: dict[tuple[str, str], list[Span]] = {}
    for span in found:
        parts.setdefault((span.trace_id, span.tenant), []).append(span)
    return [_row(parts[key]) for key in sorted(parts)]


def add_summaries(conn: Connection, rows: Sequence[Values]) -> None:
    """Adds to the summaries that are there, and makes the others."""
    write_rows(conn, _adding(conn.dialect.name), rows)


def read_summary(row: Found[Any]) -> TraceSummary:
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


def _headship(span: Span) -> str:
    """Orders the spans that could speak for a trace, the best first; kept, so that a late one is known to be better."""
    return f"{int(not span.agent)}{int(span.parent_id is not None)}{span.start_ns:020d}{span.span_id}"


def _row(found: Sequence[Span]) -> Values:
    summary = summarise(found)
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
        min(_headship(span) for span in found),
    )


@functools.cache
def _adding(dialect: str) -> Any:
    statement = insert(dialect, traces)
    old, new = traces.c, statement.excluded
    better = new.head < old.head
    # Two-argument MIN and MAX are SQLite's, LEAST and GREATEST Postgres's; CASE is both's.
    start = case((new.start_ns < old.start_ns, new.start_ns), else_=old.start_ns)
    end = case((new.end_ns > old.end_ns, new.end_ns), else_=old.end_ns)
    changes: dict[str, Any] = {
        **{name: old[name] + new[name] for name in ("spans", "errors", "input_tokens", "output_tokens", "cost")},
        **{
            name: case((better, new[name]), else_=old[name])
            for name in ("user_id", "agent", "name", "conversation_id", "fingerprint", "head")
        },
        "start_ns": start,
        "end_ns": end,
        "duration_ns": end - start,
    }
    return statement.on_conflict_do_update(index_elements=["trace_id", "tenant"], set_=changes)
