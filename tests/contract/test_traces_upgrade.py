"""A store of an earlier version is brought up to date with its traces' figures, as if all had been stored today."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, Table, create_engine, select

import handrail.kernel.db.migrations
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from handrail.traces.store.queries import top_traces
from handrail.traces.store.rollups import spend_rollups, step_rollups
from handrail.traces.store.spans import StoreSpans, load_trace, spans
from handrail.traces.store.summaries import traces
from tests.traces.samples import HOUR, MIDNIGHT

BEFORE = "0005"


def _span(number: int) -> Mapping[str, Any]:
    """A span as version 0005 stored it: of every fourth trace the root came last, and only it names its agent."""
    trace, place = divmod(number, 3)
    root = place == 2
    kept = {
        "handrail.hold.nano_usd": 7 if trace % 2 and not root else None,
        "gen_ai.conversation.id": f"c{trace}",
        "handrail.agent.fingerprint": "f1" if trace % 3 else None,
    }
    return {
        "trace_id": f"t{trace}",
        "span_id": f"s{place}",
        "parent_id": None if root else "s2",
        "kind": "agent" if root else ("model", "tool")[place],
        "name": f"name-{place}",
        "start_ns": MIDNIGHT + number * 5 * HOUR - (1 if root else 0),
        "end_ns": MIDNIGHT + number * 5 * HOUR + number * 1_000,
        "tenant": f"tenant-{trace % 2}",
        "user_id": f"u-{trace % 3}",
        "agent": "a" if root or trace % 4 else "",
        "run_id": f"run_{trace}",
        "error_type": "timeout" if number % 5 == 0 else None,
        "model": None if place else "small",
        "input_tokens": number,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "cost": number * 10,
        "attempt": 1,
        "attributes": json.dumps({name: value for name, value in kept.items() if value is not None}),
    }


@pytest.fixture
def old(store_url: str) -> str:
    """The address of a store of version 0005 with ten traces of three spans."""
    engine = create_engine(_parsed(store_url))
    with engine.begin() as conn:
        config = Config()
        config.set_main_option("script_location", str(Path(handrail.kernel.db.migrations.__file__).parent))
        config.attributes["connection"] = conn
        command.upgrade(config, BEFORE)
        _fill(conn)
    engine.dispose()
    return store_url


def _parsed(address: str) -> Any:
    return store_url(address, Path())


def _fill(conn: Connection) -> None:
    tables = MetaData()
    spans_then, traces_then = (Table(name, tables, autoload_with=conn) for name in ("spans", "traces"))
    rows = [_span(number) for number in range(30)]
    conn.execute(spans_then.insert(), rows)
    for trace in range(10):
        mine = rows[trace * 3 : trace * 3 + 3]
        sums = {name: sum(row[name] for row in mine) for name in ("input_tokens", "output_tokens", "cost")}
        whose = {name: mine[0][name] for name in ("trace_id", "tenant", "user_id", "agent")}
        when = {"start_ns": min(row["start_ns"] for row in mine), "end_ns": max(row["end_ns"] for row in mine)}
        errors = sum(row["error_type"] is not None for row in mine)
        conn.execute(traces_then.insert(), {**whose, **when, **sums, "spans": 3, "errors": errors})


def _tables(database: Database) -> Iterator[list[Any]]:
    for table in (step_rollups, spend_rollups, traces):
        yield database.read_now(partial(_rows, table))


def _rows(table: Table, conn: Connection) -> list[Any]:
    return [tuple(row) for row in conn.execute(select(table).order_by(*table.primary_key))]


def test_an_old_store_answers_like_a_new_one(old: str, tmp_path: Path) -> None:
    """Rollups and summaries made by the upgrade are those that storing the same spans anew makes."""
    upgrade(_parsed(old))
    upgraded = Database.open(old)
    fresh = Database.open(str(tmp_path / "fresh.db"))
    try:
        listed = upgraded.read_now(lambda conn: top_traces(conn, tenant=None, limit=100))
        found = [span for trace in listed for span in upgraded.read_now(_loading(trace.trace_id))]
        assert len(found) == 30
        fresh.write_now(StoreSpans(found))
        assert list(_tables(upgraded)) == list(_tables(fresh))
    finally:
        upgraded.close()
        fresh.close()


def _loading(trace_id: str) -> Any:
    return lambda conn: load_trace(conn, trace_id, None)[1]


def test_attributes_become_columns(old: str) -> None:
    """What an old span kept among its attributes, and has a column for today, is in that column."""
    upgrade(_parsed(old))
    upgraded = Database.open(old)
    query = select(spans.c.held, spans.c.conversation_id, spans.c.fingerprint).where(spans.c.span_id == "s0")
    rows = upgraded.read_now(lambda conn: conn.execute(query.order_by(spans.c.start_ns)).all())
    upgraded.close()
    assert [tuple(row) for row in rows[:3]] == [(None, "c0", None), (7, "c1", "f1"), (None, "c2", "f1")]
