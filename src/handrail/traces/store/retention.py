"""What is kept, and how it goes: spans by age, what was said in them sooner, and all of one user's.

A read finds what is to go, an op removes at most a batch of it, so that others write in between. Rollups stay: they
name steps, agents, models and users, and hold nothing that anybody said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, select

from handrail.kernel.clock import unix_ns

from .bulk import write_rows
from .spans import payloads, read_span, spans
from .summaries import add_summaries, summary_rows, traces

BATCH = 1_000
"""The most spans that one op removes, where they are not of one trace and user: some 10 ms of the writer's time."""

Key = tuple[str, str]
"""A span's trace and its own id."""

_DELETE_SPAN = delete(spans).where(spans.c.trace_id == bindparam("t"), spans.c.span_id == bindparam("s"))
_DELETE_PAYLOAD = delete(payloads).where(payloads.c.trace_id == bindparam("t"), payloads.c.span_id == bindparam("s"))
_DELETE_SUMMARY = delete(traces).where(traces.c.trace_id == bindparam("t"), traces.c.tenant == bindparam("n"))
_DELETE_EMPTY = _DELETE_SUMMARY.where(
    ~select(spans.c.span_id).where(spans.c.trace_id == traces.c.trace_id, spans.c.tenant == traces.c.tenant).exists()
)
_JOINED = traces.join(spans, and_(spans.c.trace_id == traces.c.trace_id, spans.c.tenant == traces.c.tenant))
_SAID = _JOINED.join(payloads, and_(payloads.c.trace_id == spans.c.trace_id, payloads.c.span_id == spans.c.span_id))


@dataclass(frozen=True)
class Removed:
    """How many rows went, or would go."""

    traces: int = 0
    spans: int = 0
    payloads: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.traces + other.traces, self.spans + other.spans, self.payloads + other.payloads)


@dataclass(frozen=True)
class Page:
    """Spans of traces that began before some day, the oldest traces first, and the begin of the last of these."""

    keys: Sequence[Key]
    last_ns: int


def count_old(conn: Connection, before: datetime) -> Removed:
    """What belongs to traces that ended before then."""
    old = _old(before)
    found = conn.execute(select(func.count(), func.coalesce(func.sum(traces.c.spans), 0)).where(*old)).one()
    said = conn.execute(select(func.count()).select_from(_SAID).where(*old)).scalar_one()
    return Removed(traces=found[0], spans=int(found[1]), payloads=said)


def old_spans(conn: Connection, before: datetime) -> Page:
    """At most a batch of the spans of traces that ended before then."""
    return _page(conn, select(spans.c.trace_id, spans.c.span_id, traces.c.start_ns).select_from(_JOINED), before, 0)


def old_payloads(conn: Connection, before: datetime, from_ns: int) -> Page:
    """At most a batch of the spans that tell what was said, of traces that ended before then.

    `from_ns` is where the page before ended, so that traces which tell nothing any more are not gone through again.
    """
    query = select(spans.c.trace_id, spans.c.span_id, traces.c.start_ns).select_from(_SAID)
    return _page(conn, query, before, from_ns)


def remove_spans(keys: Sequence[Key]) -> Callable[[Connection], Removed]:
    """An op that removes spans with what was said in them, and the summaries that are left without any."""

    def op(conn: Connection) -> Removed:
        ids = sorted({trace_id for trace_id, _ in keys})
        touched = conn.execute(_locked(traces.c.trace_id.in_(ids))).all()
        said, gone = write_rows(conn, _DELETE_PAYLOAD, keys), write_rows(conn, _DELETE_SPAN, keys)
        return Removed(write_rows(conn, _DELETE_EMPTY, [tuple(row) for row in touched]), gone, said)

    return op


def remove_payloads(keys: Sequence[Key]) -> Callable[[Connection], Removed]:
    """An op that removes what was said in spans, and keeps the spans."""
    return lambda conn: Removed(payloads=write_rows(conn, _DELETE_PAYLOAD, keys))


def traces_of_user(conn: Connection, tenant: str, user: str) -> list[tuple[str, int]]:
    """Each trace in which the user has spans, and how many. Goes through all spans of the store."""
    mine = (spans.c.tenant == tenant, spans.c.user_id == user)
    query = select(spans.c.trace_id, func.count()).where(*mine).group_by(spans.c.trace_id).order_by(spans.c.trace_id)
    return [(row[0], row[1]) for row in conn.execute(query)]


def remove_user(tenant: str, user: str, trace_ids: Sequence[str]) -> Callable[[Connection], Removed]:
    """An op that removes one user's spans from some traces; what others have in them is summed up anew."""
    here = (spans.c.trace_id.in_(trace_ids), spans.c.tenant == tenant)

    def op(conn: Connection) -> Removed:
        touched = conn.execute(_locked(traces.c.trace_id.in_(trace_ids), traces.c.tenant == tenant)).all()
        mine = select(spans.c.trace_id, spans.c.span_id).where(*here, spans.c.user_id == user)
        keys = [tuple(row) for row in conn.execute(mine)]
        said, gone = write_rows(conn, _DELETE_PAYLOAD, keys), write_rows(conn, _DELETE_SPAN, keys)
        write_rows(conn, _DELETE_SUMMARY, [tuple(row) for row in touched])
        left = summary_rows(read_span(row) for row in conn.execute(select(spans).where(*here)))
        add_summaries(conn, left)
        return Removed(len(touched) - len(left), gone, said)

    return op


def free_bytes(conn: Connection) -> int | None:
    """The room inside a SQLite file that new rows fill before it grows; None on Postgres, which sees to its own."""
    if conn.dialect.name != "sqlite":
        return None
    pages, size = (conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("freelist_count", "page_size"))
    return int(pages * size)


def _old(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return traces.c.start_ns < unix_ns(before), traces.c.end_ns < unix_ns(before)


def _page(conn: Connection, query: Select[Any], before: datetime, from_ns: int) -> Page:
    query = query.where(*_old(before), traces.c.start_ns >= from_ns)
    rows = conn.execute(query.order_by(traces.c.start_ns).limit(BATCH)).all()
    return Page([(row[0], row[1]) for row in rows], rows[-1][2] if rows else from_ns)


def _locked(*which: ColumnElement[bool]) -> Select[str, str]:
    """Summaries, kept still while their spans go: on Postgres, one may come late at this very moment."""
    query = select(traces.c.trace_id, traces.c.tenant).where(*which)
    return query.order_by(traces.c.trace_id, traces.c.tenant).with_for_update()
