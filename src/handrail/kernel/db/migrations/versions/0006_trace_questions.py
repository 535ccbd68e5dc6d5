"""Traces: what questions about cost, latency and origin need, filled from the spans that are there."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_PAGE = 2_000
_LEVELS = {"hour": 3_600_000_000_000, "day": 86_400_000_000_000, "day_all": 86_400_000_000_000}
_NEW_IN_SPANS = ("reported_cost", "held", "first_token_ns")
_NEW_IN_TRACES = ("name", "head")
_SPENT = ("requests", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost")


def upgrade() -> None:
    _change_tables()
    conn = op.get_bind()
    tables = sa.MetaData()
    spans, traces, steps, spend = (
        sa.Table(name, tables, autoload_with=conn) for name in ("spans", "traces", "step_rollups", "spend_rollups")
    )
    _read_attributes(conn, spans)
    heads: dict[tuple[str, str], str] = {}
    timed: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    spent: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SPENT))
    for row in _all(conn, spans):
        head = f"{int(not row.agent)}{int(row.parent_id is not None)}{row.start_ns:020d}{row.span_id}"
        key = (row.trace_id, row.tenant)
        heads[key] = min(head, heads.get(key, head))
        _count(row, timed, spent)
    _fill(conn, steps, timed, ("count", "errors", "total_ns"))
    _fill(conn, spend, spent, _SPENT, reported_cost=0)
    _fill_traces(conn, spans, traces, heads)


def _change_tables() -> None:
    for name in _NEW_IN_SPANS:
        op.add_column("spans", sa.Column(name, sa.BigInteger()))
    for name in ("conversation_id", "fingerprint"):
        op.add_column("spans", sa.Column(name, sa.String()))
        op.add_column("traces", sa.Column(name, sa.String()))
    for name in _NEW_IN_TRACES:
        op.add_column("traces", sa.Column(name, sa.String(), nullable=False, server_default=""))
    op.add_column("traces", sa.Column("duration_ns", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "step_rollups",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("total_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("tenant", "level", "start_ns", "agent", "kind", "name", "bucket"), name=op.f("pk_step_rollups")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spend_rollups",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("governed", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*_SPENT, "reported_cost")),
        sa.PrimaryKeyConstraint(
            *("tenant", "level", "start_ns", "user_id", "agent", "model", "fingerprint", "governed"),
            name=op.f("pk_spend_rollups"),
        ),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_traces_tenant_cost", "traces")
    for order in ("cost", "duration_ns", "errors"):
        op.create_index(f"ix_traces_{order}_start_ns", "traces", [order, "start_ns"])
        op.create_index(f"ix_traces_tenant_{order}_start_ns", "traces", ["tenant", order, "start_ns"])
    op.create_index("ix_traces_start_ns", "traces", ["start_ns"])
    op.create_index("ix_traces_tenant_user_id_start_ns", "traces", ["tenant", "user_id", "start_ns"])


def _all(conn: sa.Connection, spans: sa.Table) -> Iterator[sa.Row[Any]]:
    """Every span, page by page: a store may hold more than fits in memory."""
    key = (spans.c.trace_id, spans.c.span_id)
    after = ("", "")
    while page := conn.execute(
        sa.select(spans).where(sa.tuple_(*key) > sa.tuple_(*after)).order_by(*key).limit(_PAGE)
    ).all():
        yield from page
        after = (page[-1].trace_id, page[-1].span_id)


def _read_attributes(conn: sa.Connection, spans: sa.Table) -> None:
    """The new columns of spans were attributes before."""
    this = (spans.c.trace_id == sa.bindparam("this_trace"), spans.c.span_id == sa.bindparam("this_span"))
    change = sa.update(spans).where(*this)
    change = change.values({name: sa.bindparam(f"new_{name}") for name in ("held", "conversation_id", "fingerprint")})
    changed = []
    for row in _all(conn, spans):
        found = json.loads(row.attributes) if row.attributes else {}
        values = {
            "new_held": found.get("handrail.hold.nano_usd"),
            "new_conversation_id": found.get("gen_ai.conversation.id"),
            "new_fingerprint": found.get("handrail.agent.fingerprint"),
        }
        if any(value is not None for value in values.values()):
            changed.append({"this_trace": row.trace_id, "this_span": row.span_id, **values})
        if len(changed) == _PAGE:
            conn.execute(change, changed)
            changed.clear()
    if changed:
        conn.execute(change, changed)


def _count(row: Any, timed: dict[tuple[Any, ...], list[int]], spent: dict[tuple[Any, ...], list[int]]) -> None:
    duration = row.end_ns - row.start_ns
    bucket = math.ceil(math.log(duration) / math.log(1.05)) if duration > 0 else -1
    step = (row.agent, row.kind, row.name, bucket)
    what = (row.agent, row.model or "", row.fingerprint or "", row.held is not None)
    used = [int(row.kind == "model"), *(getattr(row, name) for name in _SPENT[1:])]
    took = [1, int(row.error_type is not None), duration]
    for level, length in _LEVELS.items():
        at = row.start_ns // length * length
        everybody = level == "day_all"
        _add(timed["" if everybody else row.tenant, level, at, *step], took)
        if any(used):
            _add(spent[row.tenant, level, at, "" if everybody else row.user_id, *what], used)


def _add(cell: list[int], values: list[int]) -> None:
    cell[:] = [old + new for old, new in zip(cell, values, strict=True)]


def _fill(
    conn: sa.Connection, table: sa.Table, cells: dict[tuple[Any, ...], list[int]], sums: tuple[str, ...], **rest: int
) -> None:
    keys = [column.name for column in table.primary_key]
    rows = [
        {**dict(zip(keys, key, strict=True)), **dict(zip(sums, cells[key], strict=True)), **rest}
        for key in sorted(cells)
    ]
    if rows:
        conn.execute(table.insert(), rows)


def _fill_traces(conn: sa.Connection, spans: sa.Table, traces: sa.Table, heads: dict[tuple[str, str], str]) -> None:
    """Each trace's name and origin from the span that speaks for it."""
    for (trace_id, tenant), head in heads.items():
        this = (spans.c.trace_id == trace_id, spans.c.span_id == head[22:])
        span = conn.execute(sa.select(spans).where(*this)).one()
        values = {
            "user_id": span.user_id,
            "agent": span.agent,
            "name": span.name,
            "conversation_id": span.conversation_id,
            "fingerprint": span.fingerprint,
            "head": head,
        }
        mine = (traces.c.trace_id == trace_id, traces.c.tenant == tenant)
        conn.execute(sa.update(traces).where(*mine).values(values))
    conn.execute(sa.update(traces).values(duration_ns=traces.c.end_ns - traces.c.start_ns))
