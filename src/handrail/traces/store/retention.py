"""Retention and erasure: removes old spans, old content, and everything of one user.

A read finds the rows, and each operation removes one batch of them at most, so that other writes can run in between.
Rollups stay: they name steps, agents, models and users, but have no content.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, select

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.operation import operation

from .bulk import write_rows
from .spans import payloads, span_from_row, spans
from .summaries import add_summaries, summary_rows, traces

MAX_REMOVED_SPANS = 1_000
"""Spans one operation removes at most, about 10 ms of the writer's time. `remove_user_spans` is limited by traces."""

SpanKey = tuple[str, str]
"""A span's trace id and its own id."""

_DELETE_SPAN = delete(spans).where(spans.c.trace_id == bindparam("t"), spans.c.span_id == bindparam("s"))
_DELETE_PAYLOAD = delete(payloads).where(payloads.c.trace_id == bindparam("t"), payloads.c.span_id == bindparam("s"))
_DELETE_SUMMARY = delete(traces).where(traces.c.trace_id == bindparam("t"), traces.c.tenant == bindparam("n"))
_DELETE_EMPTY = _DELETE_SUMMARY.where(
    ~select(spans.c.span_id).where(spans.c.trace_id == traces.c.trace_id, spans.c.tenant == traces.c.tenant).exists()
)
_WITH_SUMMARIES = traces.join(spans, and_(spans.c.trace_id == traces.c.trace_id, spans.c.tenant == traces.c.tenant))
_WITH_PAYLOADS = _WITH_SUMMARIES.join(
    payloads, and_(payloads.c.trace_id == spans.c.trace_id, payloads.c.span_id == spans.c.span_id)
)


@dataclass(frozen=True)
class RemovedRows:
    """How many rows were removed, or would be."""

    traces: int = 0
    spans: int = 0
    payloads: int = 0

    def __add__(self, other: "RemovedRows") -> "RemovedRows":
        return RemovedRows(self.traces + other.traces, self.spans + other.spans, self.payloads + other.payloads)


@dataclass(frozen=True)
class SpanPage:
    """Spans of old traces, those of the oldest traces first; `last_ns` is the start of the last of these traces."""

    keys: Sequence[SpanKey]
    last_ns: int


@operation
def count_old(conn: Connection, before: datetime) -> RemovedRows:
    """Counts the rows of traces that ended before `before`."""
    old = _ended_before(before)
    counts = conn.execute(select(func.count(), func.coalesce(func.sum(traces.c.spans), 0)).where(*old)).one()
    payload_count = conn.execute(select(func.count()).select_from(_WITH_PAYLOADS).where(*old)).scalar_one()
    return RemovedRows(traces=counts[0], spans=int(counts[1]), payloads=payload_count)


@operation
def old_spans(conn: Connection, before: datetime) -> SpanPage:
    """At most a batch of the spans of traces that ended before `before`."""
    return _page(
        conn, select(spans.c.trace_id, spans.c.span_id, traces.c.start_ns).select_from(_WITH_SUMMARIES), before, 0
    )


@operation
def old_payloads(conn: Connection, before: datetime, from_ns: int) -> SpanPage:
    """At most a batch of the spans with a payload, of traces that ended before `before`.

    `from_ns` is where the previous page ended, so that traces whose content is gone are not read again.
    """
    query = select(spans.c.trace_id, spans.c.span_id, traces.c.start_ns).select_from(_WITH_PAYLOADS)
    return _page(conn, query, before, from_ns)


@operation
def remove_spans(conn: Connection, keys: Sequence[SpanKey]) -> RemovedRows:
    """Removes spans, their payloads, and the summaries that are left without spans."""
    ids = sorted({trace_id for trace_id, _ in keys})
    touched = conn.execute(_lock_summaries(traces.c.trace_id.in_(ids))).all()
    payload_count = write_rows(conn, _DELETE_PAYLOAD, keys)
    span_count = write_rows(conn, _DELETE_SPAN, keys)
    trace_count = write_rows(conn, _DELETE_EMPTY, [tuple(row) for row in touched])
    return RemovedRows(trace_count, span_count, payload_count)


@operation
def remove_payloads(conn: Connection, keys: Sequence[SpanKey]) -> RemovedRows:
    """Removes the payloads of spans and keeps the spans."""
    return RemovedRows(payloads=write_rows(conn, _DELETE_PAYLOAD, keys))


@operation
def traces_of_user(conn: Connection, tenant: str, user: str) -> list[tuple[str, int]]:
    """Each trace in which the user has spans, with their number. Scans the whole table: no index has the user."""
    is_users = (spans.c.tenant == tenant, spans.c.user_id == user)
    query = (
        select(spans.c.trace_id, func.count()).where(*is_users).group_by(spans.c.trace_id).order_by(spans.c.trace_id)
    )
    return [(row[0], row[1]) for row in conn.execute(query)]


@operation
def remove_user_spans(conn: Connection, tenant: str, user: str, trace_ids: Sequence[str]) -> RemovedRows:
    """Removes one user's spans from some traces and summarises the remaining spans again."""
    in_traces = (spans.c.trace_id.in_(trace_ids), spans.c.tenant == tenant)
    touched = conn.execute(_lock_summaries(traces.c.trace_id.in_(trace_ids), traces.c.tenant == tenant)).all()
    of_user = select(spans.c.trace_id, spans.c.span_id).where(*in_traces, spans.c.user_id == user)
    keys = [tuple(row) for row in conn.execute(of_user)]
    payload_count = write_rows(conn, _DELETE_PAYLOAD, keys)
    span_count = write_rows(conn, _DELETE_SPAN, keys)
    write_rows(conn, _DELETE_SUMMARY, [tuple(row) for row in touched])
    remaining = summary_rows(span_from_row(row) for row in conn.execute(select(spans).where(*in_traces)))
    add_summaries(conn, remaining)
    return RemovedRows(len(touched) - len(remaining), span_count, payload_count)


@operation
def free_bytes(conn: Connection) -> int | None:
    """Free bytes inside a SQLite file, which new rows use before it grows; None on Postgres."""
    if conn.dialect.name != "sqlite":
        return None
    pages, size = (conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("freelist_count", "page_size"))
    return int(pages * size)


def _ended_before(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return traces.c.start_ns < unix_ns(before), traces.c.end_ns < unix_ns(before)


def _page(conn: Connection, query: Select[Any], before: datetime, from_ns: int) -> SpanPage:
    query = query.where(*_ended_before(before), traces.c.start_ns >= from_ns)
    rows = conn.execute(query.order_by(traces.c.start_ns).limit(MAX_REMOVED_SPANS)).all()
    return SpanPage([(row[0], row[1]) for row in rows], rows[-1][2] if rows else from_ns)


def _lock_summaries(*conditions: ColumnElement[bool]) -> Select[str, str]:
    """Locks summaries while their spans are removed: on Postgres, another transaction may be adding a late span."""
    query = select(traces.c.trace_id, traces.c.tenant).where(*conditions)
    return query.order_by(traces.c.trace_id, traces.c.tenant).with_for_update()
