"""Stores and loads spans. Payloads are in a table of their own, so that lists and reports never read content.

Summaries and rollups are updated in the same transaction, so that they always agree with the spans.
"""

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
    and_,
    select,
)

from handrail.kernel.db.engine import insert
from handrail.kernel.db.operation import operation
from handrail.kernel.db.schema import metadata
from handrail.kernel.errors import NotFound
from handrail.kernel.serialization import as_json, pack, unpack
from handrail.traces.model import Span, Usage

from .bulk import RowValues, write_rows
from .rollups import RollupRows, add_rollups, rollup_rows
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


class SpanBatch:
    """An operation that stores finished spans and returns the number of those that were new.

    It is idempotent: of several spans with the same id, now or later, the first is stored and counted, and the others
    change nothing. Senders repeat a batch whenever a response is lost, so only newly inserted spans are added to
    summaries and rollups.
    """

    def __init__(self, finished: Iterable[Span]) -> None:
        # Everything that needs no connection is prepared here, since on SQLite all writes wait for the writer's thread.
        # Rows are in the order of their ids, so that two transactions cannot deadlock on Postgres.
        unique: dict[_Key, Span] = {}
        for span in finished:
            unique.setdefault((span.trace_id, span.span_id), span)
        self._spans = [unique[key] for key in sorted(unique)]
        self._rows = [_row(span) for span in self._spans]
        self._bodies = [
            (span.trace_id, span.span_id, pack(span.payload)) for span in self._spans if span.payload is not None
        ]
        self._summaries = summary_rows(self._spans)
        self._rollups = rollup_rows(self._spans)

    def __call__(self, conn: Connection) -> int:
        """Stores the spans and returns the number of those that were new."""
        if not self._rows:
            return 0
        if self._all_new(conn):
            self._add(conn, self._bodies, self._summaries, self._rollups)
            return len(self._rows)
        new = self._only_new(conn)
        new_spans = [span for span in self._spans if (span.trace_id, span.span_id) in new]
        self._add(
            conn, [body for body in self._bodies if body[:2] in new], summary_rows(new_spans), rollup_rows(new_spans)
        )
        return len(new_spans)

    def _all_new(self, conn: Connection) -> bool:
        """Inserts all spans, or none if some were stored before; all being new is the common case, and this is fast."""
        conn.exec_driver_sql("SAVEPOINT spans")
        stored = write_rows(conn, _insert_new(conn.dialect.name, spans), self._rows)
        if stored != len(self._rows):
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT spans")
        conn.exec_driver_sql("RELEASE SAVEPOINT spans")
        return stored == len(self._rows)

    def _only_new(self, conn: Connection) -> set[_Key]:
        """Inserts the spans that are not stored yet and returns their keys; five times slower than `_all_new`."""
        statement = _insert_new(conn.dialect.name, spans).returning(spans.c.trace_id, spans.c.span_id)
        rows = [dict(zip(spans.c.keys(), row, strict=True)) for row in self._rows]
        return {(row.trace_id, row.span_id) for row in conn.execute(statement, rows)}

    def _add(
        self, conn: Connection, bodies: Sequence[RowValues], summaries: Sequence[RowValues], rollups: RollupRows
    ) -> None:
        write_rows(conn, _insert_new(conn.dialect.name, payloads), bodies)
        add_summaries(conn, summaries)
        add_rollups(conn, rollups)


@operation
def load_trace(conn: Connection, trace_id: str, tenant: str | None) -> tuple[TraceSummary, list[Span]]:
    """A trace's summary and its spans, in the order in which they started and without payloads.

    Args:
        trace_id: 32 lower-case hex digits.
        tenant: Only this tenant's spans are loaded and summarised; None is the operator's view of all. A trace has
            spans of several tenants if a program serves them all below one span of its own.

    Raises:
        NotFound: There is no such trace, or it has no spans of that tenant.
    """
    query = select(spans).where(spans.c.trace_id == trace_id)
    if tenant is not None:
        query = query.where(spans.c.tenant == tenant)
    rows = conn.execute(query.order_by(spans.c.start_ns, spans.c.span_id)).all()
    if not rows:
        raise NotFound(f"no trace {trace_id}; `handrail traces list` shows the newest")
    loaded = [span_from_row(row) for row in rows]
    return summarise(loaded), loaded


@operation
def load_payload(conn: Connection, trace_id: str, span_id: str) -> Mapping[str, Any] | None:
    """A span's payload, or None if it has none or its content has been removed."""
    query = select(payloads.c.body).where(payloads.c.trace_id == trace_id, payloads.c.span_id == span_id)
    body = conn.execute(query).scalar()
    return None if body is None else dict(unpack(body))


@operation
def load_payloads(conn: Connection, trace_id: str, tenant: str | None) -> dict[str, Mapping[str, Any]]:
    """The payloads of a trace by span id; with a tenant, only those of its spans."""
    query = select(payloads.c.span_id, payloads.c.body).where(payloads.c.trace_id == trace_id)
    if tenant is not None:
        of_span = and_(spans.c.trace_id == payloads.c.trace_id, spans.c.span_id == payloads.c.span_id)
        query = query.join(spans, of_span).where(spans.c.tenant == tenant)
    return {span_id: dict(unpack(body)) for span_id, body in conn.execute(query)}


def _row(span: Span) -> RowValues:
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


def span_from_row(row: Row[Any]) -> Span:
    """A row of `spans` as a span without its payload."""
    # Unpacked in the order of the columns: looking each one up by name takes as long as making the span.
    values: tuple[Any, ...] = tuple(row)
    trace_id, span_id, parent_id, kind, name, start_ns, end_ns, tenant, user, agent, run_id, *details = values
    error_type, provider, model, input_, output, cache_read, cache_write, cost, reported_cost, held, *details = details
    conversation_id, first_token_ns, fingerprint, attempt, retry_of, attributes = details
    any_tokens = input_ or output or cache_read or cache_write
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
        usage=Usage(input=input_, output=output, cache_read=cache_read, cache_write=cache_write)
        if any_tokens
        else _UNUSED,
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
