"""The traces' tables: narrow spans, what was said in a table of its own, and one summary row per trace."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    case,
    select,
    tuple_,
)

from handrail.kernel import NanoUsd, NotFound, as_json, insert, insert_new, metadata, pack, unpack

from .span import Span, Usage

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
    Index("ix_traces_tenant_start_ns", "tenant", "start_ns"),
    Index("ix_traces_tenant_cost", "tenant", "cost"),
)


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """One tenant's part of one trace at a glance; times are nanoseconds since 1970."""

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


class StoreSpans:
    """An op that stores finished spans; a span that is there already changes nothing."""

    def __init__(self, found: Iterable[Span]) -> None:
        # Encoded here, off the writer's thread: its time is everybody's.
        self._rows = [(_row(span), None if span.payload is None else pack(span.payload)) for span in found]

    def __call__(self, conn: Connection) -> int:
        """The number of spans that were new."""
        fresh: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row, body in self._rows:
            if not insert_new(conn, spans, row):
                continue
            fresh.setdefault((row["trace_id"], row["tenant"]), []).append(row)
            if body is not None:
                key = {"trace_id": row["trace_id"], "span_id": row["span_id"]}
                insert_new(conn, payloads, {**key, "body": body})
        for rows in fresh.values():
            _summarise(conn, rows)
        return sum(len(rows) for rows in fresh.values())


def list_traces(conn: Connection, tenant: str | None, limit: int, before: tuple[int, str] | None) -> list[TraceSummary]:
    """The newest traces first; of one tenant, or of all where it is None (an operator's view).

    `before` is the start and the id of the last trace of the page before.
    """
    query = select(traces).order_by(traces.c.start_ns.desc(), traces.c.trace_id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(traces.c.tenant == tenant)
    if before is not None:
        query = query.where(tuple_(traces.c.start_ns, traces.c.trace_id) < tuple_(*before))
    return [_summary(row) for row in conn.execute(query)]


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
    found = [_span(row) for row in rows]
    return _summary_of(found), found


def load_payload(conn: Connection, trace_id: str, span_id: str) -> Mapping[str, Any] | None:
    """What was said in a span, or None where nothing was kept."""
    query = select(payloads.c.body).where(payloads.c.trace_id == trace_id, payloads.c.span_id == span_id)
    body = conn.execute(query).scalar()
    return None if body is None else dict(unpack(body))


def _row(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "kind": span.kind,
        "name": span.name,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "tenant": span.tenant,
        "user_id": span.user,
        "agent": span.agent,
        "run_id": span.run_id,
        "error_type": span.error_type,
        "provider": span.provider,
        "model": span.model,
        "input_tokens": span.usage.input,
        "output_tokens": span.usage.output,
        "cache_read_tokens": span.usage.cache_read,
        "cache_write_tokens": span.usage.cache_write,
        "cost": span.cost,
        "reported_cost": span.reported_cost,
        "held": span.held,
        "conversation_id": span.conversation_id,
        "first_token_ns": span.first_token_ns,
        "fingerprint": span.fingerprint,
        "attempt": span.attempt,
        "retry_of": span.retry_of,
        "attributes": as_json(span.attributes).decode() if span.attributes else None,
    }


def _span(row: Row[Any]) -> Span:
    usage = Usage(
        input=row.input_tokens,
        output=row.output_tokens,
        cache_read=row.cache_read_tokens,
        cache_write=row.cache_write_tokens,
    )
    return Span(
        trace_id=row.trace_id,
        span_id=row.span_id,
        parent_id=row.parent_id,
        kind=row.kind,
        name=row.name,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        tenant=row.tenant,
        user=row.user_id,
        agent=row.agent,
        run_id=row.run_id,
        error_type=row.error_type,
        provider=row.provider,
        model=row.model,
        usage=usage,
        cost=NanoUsd(row.cost),
        reported_cost=None if row.reported_cost is None else NanoUsd(row.reported_cost),
        held=None if row.held is None else NanoUsd(row.held),
        conversation_id=row.conversation_id,
        first_token_ns=row.first_token_ns,
        fingerprint=row.fingerprint,
        attempt=row.attempt,
        retry_of=row.retry_of,
        attributes=json.loads(row.attributes) if row.attributes else {},
    )


def _summarise(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    first = rows[0]
    added = {
        "trace_id": first["trace_id"],
        "tenant": first["tenant"],
        "user_id": first["user_id"],
        "agent": first["agent"],
        "start_ns": min(row["start_ns"] for row in rows),
        "end_ns": max(row["end_ns"] for row in rows),
        "spans": len(rows),
        "errors": sum(row["error_type"] is not None for row in rows),
        "input_tokens": sum(row["input_tokens"] for row in rows),
        "output_tokens": sum(row["output_tokens"] for row in rows),
        "cost": sum(row["cost"] for row in rows),
    }
    conn.execute(_add_to_summary(conn.dialect.name), added)


def _summary_of(found: Sequence[Span]) -> TraceSummary:
    first = found[0]
    return TraceSummary(
        trace_id=first.trace_id,
        tenant=first.tenant,
        user=first.user,
        agent=first.agent,
        start_ns=first.start_ns,
        end_ns=max(span.end_ns for span in found),
        spans=len(found),
        errors=sum(span.error_type is not None for span in found),
        input_tokens=sum(span.usage.input for span in found),
        output_tokens=sum(span.usage.output for span in found),
        cost=NanoUsd(sum(span.cost for span in found)),
    )


@functools.cache
def _add_to_summary(dialect: str) -> Any:
    statement = insert(dialect, traces)
    new = statement.excluded
    changes: dict[str, Any] = {
        name: traces.c[name] + new[name] for name in ("spans", "errors", "input_tokens", "output_tokens", "cost")
    }
    # Two-argument MIN and MAX are SQLite's, LEAST and GREATEST Postgres's; CASE is both's.
    changes["start_ns"] = case((new.start_ns < traces.c.start_ns, new.start_ns), else_=traces.c.start_ns)
    changes["end_ns"] = case((new.end_ns > traces.c.end_ns, new.end_ns), else_=traces.c.end_ns)
    return statement.on_conflict_do_update(index_elements=["trace_id", "tenant"], set_=changes)


def _summary(row: Row[Any]) -> TraceSummary:
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
    )
