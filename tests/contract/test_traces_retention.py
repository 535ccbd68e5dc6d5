"""Removing traces by age and by user, on every engine."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection

from handrail.kernel.clock import from_unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span
from handrail.traces.store import retention
from handrail.traces.store.retention import (
    RemovedRows,
    count_old,
    free_bytes,
    old_payloads,
    old_spans,
    remove_payloads,
    remove_spans,
    remove_user_spans,
    traces_of_user,
)
from handrail.traces.store.rollup_queries import spend_by, step_latencies
from handrail.traces.store.spans import SpanBatch, load_payload, load_trace
from handrail.traces.store.summaries import summarise
from handrail.traces.store.trace_queries import top_traces
from tests.traces.samples import DAY, HOUR, MIDNIGHT, span

PAYLOAD = {"input": "hello"}
BEFORE = from_unix_ns(MIDNIGHT + 5 * DAY)
ALWAYS: dict[str, Any] = {"tenant": None, "since": from_unix_ns(0), "until": from_unix_ns(MIDNIGHT + 99 * DAY)}


def _of_day(number: int, spans: int = 3) -> list[Span]:
    start_ns = MIDNIGHT + number * DAY
    return [
        span(
            f"s{n}", trace_id=f"t{number}", start_ns=start_ns, end_ns=start_ns + HOUR, payload=PAYLOAD, cost=NanoUsd(7)
        )
        for n in range(spans)
    ]


@pytest.fixture
def ten_days(database: Database) -> Database:
    """A trace of three spans a day, for ten days, each with content."""
    database.write_now(*(SpanBatch(_of_day(number)) for number in range(10)))
    return database


def _ids(database: Database) -> list[str]:
    return sorted(trace.trace_id for trace in database.read_now(top_traces(tenant=None, limit=100)))


def _prune(database: Database) -> list[RemovedRows]:
    removed = []
    while keys := database.read_now(old_spans(BEFORE)).keys:
        removed += database.write_now(remove_spans(keys))
    return removed


def _rollup_results(database: Database) -> Sequence[Any]:
    queries: list[Callable[[Connection], Any]] = [
        step_latencies(**ALWAYS),
        spend_by(key="user", **ALWAYS),
    ]
    return [database.read_now(query) for query in queries]


def test_old_traces_are_removed_whole(ten_days: Database) -> None:
    """Old traces are removed with payloads and summaries, as counted before; other traces and rollups are kept."""
    results = _rollup_results(ten_days)
    assert ten_days.read_now(count_old(BEFORE)) == RemovedRows(5, 15, 15)
    assert sum(_prune(ten_days), RemovedRows()) == RemovedRows(5, 15, 15)
    assert _ids(ten_days) == ["t5", "t6", "t7", "t8", "t9"]
    with pytest.raises(NotFound):
        ten_days.read_now(load_trace("t4", None))
    assert ten_days.read_now(load_payload("t4", "s0")) is None
    assert ten_days.read_now(load_payload("t5", "s0")) == PAYLOAD
    assert _rollup_results(ten_days) == results
    assert ten_days.read_now(count_old(BEFORE)) == RemovedRows()


def test_a_trace_is_removed_in_batches(ten_days: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may end within a trace, whose summary is removed with its last span."""
    monkeypatch.setattr(retention, "MAX_REMOVED_SPANS", 2)
    pieces = _prune(ten_days)
    assert [piece.spans for piece in pieces] == [2] * 7 + [1]
    assert sum(pieces, RemovedRows()) == RemovedRows(5, 15, 15)
    assert _ids(ten_days) == ["t5", "t6", "t7", "t8", "t9"]


def test_a_trace_that_ended_later_is_kept(database: Database) -> None:
    """A trace that started before the limit and ended after it is kept whole."""
    database.write_now(SpanBatch([*_of_day(1, 1), *_of_day(9, 1)]))
    database.write_now(SpanBatch([span("late", trace_id="t1", start_ns=MIDNIGHT, end_ns=MIDNIGHT + 8 * DAY)]))
    assert _prune(database) == []
    assert _ids(database) == ["t1", "t9"]


def test_payloads_are_removed_sooner(ten_days: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads of old traces are removed batch by batch; their spans and summaries are kept."""
    monkeypatch.setattr(retention, "MAX_REMOVED_SPANS", 4)
    before = ten_days.read_now(top_traces(tenant=None, limit=100))
    removed, from_ns = RemovedRows(), 0
    while (page := ten_days.read_now(old_payloads(before=BEFORE, from_ns=from_ns))).keys:
        removed, from_ns = removed + ten_days.write_now(remove_payloads(page.keys))[0], page.last_ns
    assert removed == RemovedRows(payloads=15)
    assert ten_days.read_now(top_traces(tenant=None, limit=100)) == before
    assert ten_days.read_now(load_payload("t4", "s0")) is None
    assert ten_days.read_now(load_payload("t5", "s0")) == PAYLOAD


def test_a_trace_of_two_tenants(database: Database) -> None:
    """Of a trace that two tenants share, only the part that is old is removed."""
    old = span("s1", start_ns=MIDNIGHT, end_ns=MIDNIGHT + 1, payload=PAYLOAD)
    new = span("s2", tenant="other", start_ns=MIDNIGHT + 8 * DAY, end_ns=MIDNIGHT + 8 * DAY + 1, payload=PAYLOAD)
    database.write_now(SpanBatch([old, new]))
    assert sum(_prune(database), RemovedRows()) == RemovedRows(1, 1, 1)
    _, left = database.read_now(load_trace("t1", None))
    assert [row.span_id for row in left] == ["s2"]
    assert database.read_now(load_payload("t1", "s2")) == PAYLOAD


def test_a_user_is_erased(database: Database) -> None:
    """A user's spans of one tenant are removed with their payloads; all others are kept."""
    mine = [span("s1", payload=PAYLOAD), span("s2", trace_id="t2", parent_id="s9", payload=PAYLOAD)]
    theirs = [
        span("s3", user="u-2", payload=PAYLOAD),
        span("s4", user="u-2", parent_id="s1", error_type="x", cost=NanoUsd(5), end_ns=900),
        span("s5", tenant="other", payload=PAYLOAD),
    ]
    database.write_now(SpanBatch([*mine, *theirs]))
    rows = dict(database.read_now(traces_of_user("acme", "u-1")))
    assert rows == {"t1": 1, "t2": 1}
    assert database.write_now(remove_user_spans("acme", "u-1", sorted(rows))) == [RemovedRows(1, 2, 2)]
    _, left = database.read_now(load_trace("t1", None))
    assert {row.span_id for row in left} == {"s3", "s4", "s5"}
    payloads = [database.read_now(load_payload(trace_id="t1", span_id=name)) for name in ("s1", "s3", "s5")]
    assert payloads == [None, PAYLOAD, PAYLOAD]
    [summary] = database.read_now(top_traces(tenant="acme"))
    assert summary == summarise(theirs[:2])
    assert database.read_now(traces_of_user("acme", "u-1")) == []


def test_removed_rows_leave_free_space(database: Database) -> None:
    """On SQLite, removed rows leave free space in the file, and its size is known; on Postgres it is not."""
    long = {"input": Random(1).randbytes(900_000)}
    database.write_now(SpanBatch([span(payload=long, start_ns=MIDNIGHT, end_ns=MIDNIGHT + 1)]))
    before = database.read_now(free_bytes())
    _prune(database)
    after = database.read_now(free_bytes())
    assert (before, after) == (None, None) if "postgres" in database.name else (after or 0) > (before or 0) + 500_000
