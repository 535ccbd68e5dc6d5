"""Spans in and out: narrow rows, what was said in a table of its own, and what sums them up brought up to date."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    select,
)

from handrail.kernel.db.engine import insert
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import as_json, pack, unpack
from handrail.traces.model import Span, Usage

from .bulk import Values, write_rows
from .rollups import Rolled, add, roll
from .summaries import TraceSummary, add_summaries, summarise, summary_rows

_Key = tuple[str, str]
_UNUSED = Usage()

spans = Table(
    "spans",
    metadata,
    Column("trace_id", String, primary_key=True),
    Column("span_id", String, primary_key=True),
    Column("parent_id", String),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("error_type", String),
    Column("provider", String),
    Column("model", String),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("reported_cost", BigInteger),
    Column("held", BigInteger),
    Column("conversation_id", String),
    Column("first_token_ns", BigInteger),
    Column("fingerprint", String),
    Column("attempt", Integer, nullable=False),
    Column("retry_of", String),
    Column("attributes", Text),
    Index("ix_spans_run_id", "run_id"),
)
payloads = Table(
    "payloads",
    metadata,
    Column("trace_id", String, primary_key=True),
    Column("span_id", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)


class StoreSpans:
    """An op that stores finished spans, and gives the number of those that were new.

    A span that is there already changes nothing: of several with one id, the first is kept and counted.
    """

    def __init__(self, found: Iterable[Span]) -> None:
        # Prepared here, off the writer's thread: its time is everybody's. Ids in order keep two writers of Postgres
        # from waiting for each other.
        unique: dict[_Key, Span] = {}
        for span in found:
            unique.setdefault((span.trace_id, span.span_id), span)
        self._spans = [unique[key] for key in sorted(unique)]
        self._rows = [_row(span) for span in self._spans]
        self._bodies = [
            (span.trace_id, span.span_id, pack(span.payload)) for span in self._spans if span.payload is not None
        ]
        self._summaries = summary_rows(self._spans)
        self._rolled = roll(self._spans)

    def __call__(self, conn: Connection) -> int:
        """The number of spans that were new."""
        if not self._rows:
            return 0
        if self._all_new(conn):
            self._add(conn, self._bodies, self._summaries, self._rolled)
            return len(self._rows)
        new = self._only_new(conn)
        fresh = [span for span in self._spans if (span.trace_id, span.span_id) in new]
        self._add(conn, [body for body in self._bodies if body[:2] in new], summary_rows(fresh), roll(fresh))
        return len(fresh)

    def _all_new(self, conn: Connection) -> bool:
        """Stores all spans, or none where some were there before."""
        conn.exec_driver_sql("SAVEPOINT spans")
        stored = write_rows(conn, _insert_new(conn.dialect.name, spans), self._rows)
        if stored != len(self._rows):
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT spans")
        conn.exec_driver_sql("RELEASE SAVEPOINT spans")
        return stored == len(self._rows)

    def _only_new(self, conn: Connection) -> set[_Key]:
        """Stores the spans that are not there yet, and gives their keys; five times as slow."""
        inserting = _insert_new(conn.dialect.name, spans).returning(spans.c.trace_id, spans.c.span_id)
        rows = [dict(zip(spans.c.keys(), row, strict=True)) for row in self._rows]
        return {(row.trace_id, row.span_id) for row in conn.execute(inserting, rows)}

    def _add(self, conn: Connection, bodies: Sequence[Values], summaries: Sequence[Values], rolled: Rolled) -> None:
        write_rows(conn, _insert_new(conn.dialect.name, payloads), bodies)
        add_summaries(conn, summaries)
        add(conn, rolled)


def load_trace(conn: Connection, trace_id: str, tenant: str | None) -> tuple[TraceSummary, list[Span]]:
    """A trace and its spans in the order they began, payloads left out. Raises NotFound.

    A program that serves several tenants under one span of its own has them all in one trace: with a `tenant`, only
    its spans are seen, and only they are counted.
    """
    query = select(spans).where(spans.c.trace_id == trace_id)
    if tenant is not None:
        query = query.where(spans.c.tenant == tenant)
    rows = conn.execute(query.order_by(spans.c.start_ns, spans.c.span_id)).all()
    if not rows:
        raise NotFound(f"no trace {trace_id}; `handrail traces list` shows the newest")
    found = [read_span(row) for row in rows]
    return summarise(found), found


def load_payload(conn: Connection, trace_id: str, span_id: str) -> Mapping[str, Any] | None:
    """What was said in a span, or None where nothing was kept."""
    query = select(payloads.c.body).where(payloads.c.trace_id == trace_id, payloads.c.span_id == span_id)
    body = conn.execute(query).scalar()
    return None if body is None else dict(unpack(body))


def _row(span: Span) -> Values:
    usage = span.usage
    return (
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.kind,
        span.name,
        span.start_ns,
        span.end_ns,
        span.tenant,
        span.user,
        span.agent,
        span.run_id,
        span.error_type,
        span.provider,
        span.model,
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write,
        span.cost,
        span.reported_cost,
        span.held,
        span.conversation_id,
        span.first_token_ns,
        span.fingerprint,
        span.attempt,
        span.retry_of,
        as_json(span.attributes).decode() if span.attributes else None,
    )


def read_span(row: Row[Any]) -> Span:
    """A row of `spans` as a span, without what was said in it."""
    # Taken apart in the order of the columns: to look each up by its name takes as long as to make the span.
    values: tuple[Any, ...] = tuple(row)
    trace_id, span_id, parent_id, kind, name, start_ns, end_ns, tenant, user, agent, run_id, *details = values
    error_type, provider, model, sent, got, cache_read, cache_write, cost, reported_cost, held, *details = details
    conversation_id, first_token_ns, fingerprint, attempt, retry_of, attributes = details
    any_tokens = sent or got or cache_read or cache_write
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        kind=kind,
        name=name,
        start_ns=start_ns,
        end_ns=end_ns,
        tenant=tenant,
        user=user,
        agent=agent,
        run_id=run_id,
        error_type=error_type,
        provider=provider,
        model=model,
        usage=Usage(input=sent, output=got, cache_read=cache_read, cache_write=cache_write) if any_tokens else _UNUSED,
        cost=cost,
        reported_cost=reported_cost,
        held=held,
        conversation_id=conversation_id,
        first_token_ns=first_token_ns,
        fingerprint=fingerprint,
        attempt=attempt,
        retry_of=retry_of,
        attributes=from_json(attributes) if attributes else {},
    )


@functools.cache
def _insert_new(dialect: str, table: Table) -> Any:
    return insert(dialect, table).on_conflict_do_nothing()
