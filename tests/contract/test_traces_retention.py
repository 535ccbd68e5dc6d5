"""What goes with age, and with a user, and what stays, whatever the engine."""

from collections.abc import Callable, Sequence
from functools import partial
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
from handrail.traces.store.queries import spend_by, step_latencies, top_traces
from handrail.traces.store.retention import (
    Removed,
    count_old,
    free_bytes,
    old_payloads,
    old_spans,
    remove_payloads,
    remove_spans,
    remove_user,
    traces_of_user,
)
from handrail.traces.store.spans import StoreSpans, load_payload, load_trace
from handrail.traces.store.summaries import summarise
from tests.traces.samples import DAY, HOUR, MIDNIGHT, span

SAID = {"said": "hello"}
BEFORE = from_unix_ns(MIDNIGHT + 5 * DAY)
ALWAYS: dict[str, Any] = {"tenant": None, "since": from_unix_ns(0), "until": from_unix_ns(MIDNIGHT + 99 * DAY)}


def _of_day(number: int, spans: int = 3) -> list[Span]:
    start_ns = MIDNIGHT + number * DAY
    return [
        span(f"s{n}", trace_id=f"t{number}", start_ns=start_ns, end_ns=start_ns + HOUR, payload=SAID, cost=NanoUsd(7))
        for n in range(spans)
    ]


@pytest.fixture
def ten_days(database: Database) -> Database:
    """A trace of three spans a day, for ten days, each with what was said."""
    database.write_now(*(StoreSpans(_of_day(number)) for number in range(10)))
    return database


def _ids(database: Database) -> list[str]:
    return sorted(trace.trace_id for trace in database.read_now(partial(top_traces, tenant=None, limit=100)))


def _prune(database: Database) -> list[Removed]:
    removed = []
    while keys := database.read_now(lambda conn: old_spans(conn, BEFORE)).keys:
        removed += database.write_now(remove_spans(keys))
    return removed


def _answers(database: Database) -> Sequence[Any]:
    questions: list[Callable[[Connection], Any]] = [
        lambda conn: step_latencies(conn, **ALWAYS),
        lambda conn: spend_by(conn, key="user", **ALWAYS),
    ]
    return [database.read_now(question) for question in questions]


def test_old_traces_go_whole(ten_days: Database) -> None:
    """What ended before goes with its payloads and its summary, as many as were counted; the rest and the sums stay."""
    answers = _answers(ten_days)
    assert ten_days.read_now(lambda conn: count_old(conn, BEFORE)) == Removed(5, 15, 15)
    assert sum(_prune(ten_days), Removed()) == Removed(5, 15, 15)
    assert _ids(ten_days) == ["t5", "t6", "t7", "t8", "t9"]
    with pytest.raises(NotFound):
        ten_days.read_now(lambda conn: load_trace(conn, "t4", None))
    assert ten_days.read_now(lambda conn: load_payload(conn, "t4", "s0")) is None
    assert ten_days.read_now(lambda conn: load_payload(conn, "t5", "s0")) == SAID
    assert _answers(ten_days) == answers
    assert ten_days.read_now(lambda conn: count_old(conn, BEFORE)) == Removed()


def test_a_trace_goes_in_pieces(ten_days: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may end within a trace, whose summary goes with its last span."""
    monkeypatch.setattr(retention, "BATCH", 2)
    pieces = _prune(ten_days)
    assert [piece.spans for piece in pieces] == [2] * 7 + [1]
    assert sum(pieces, Removed()) == Removed(5, 15, 15)
    assert _ids(ten_days) == ["t5", "t6", "t7", "t8", "t9"]


def test_a_trace_that_goes_on_stays(database: Database) -> None:
    """A trace that began before and ended after stays, whole."""
    database.write_now(StoreSpans([*_of_day(1, 1), *_of_day(9, 1)]))
    database.write_now(StoreSpans([span("late", trace_id="t1", start_ns=MIDNIGHT, end_ns=MIDNIGHT + 8 * DAY)]))
    assert _prune(database) == []
    assert _ids(database) == ["t1", "t9"]


def test_what_was_said_goes_sooner(ten_days: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said in old traces goes, batch by batch; their spans and summaries stay."""
    monkeypatch.setattr(retention, "BATCH", 4)
    before = ten_days.read_now(partial(top_traces, tenant=None, limit=100))
    removed, from_ns = Removed(), 0
    while (page := ten_days.read_now(partial(old_payloads, before=BEFORE, from_ns=from_ns))).keys:
        removed, from_ns = removed + ten_days.write_now(remove_payloads(page.keys))[0], page.last_ns
    assert removed == Removed(payloads=15)
    assert ten_days.read_now(partial(top_traces, tenant=None, limit=100)) == before
    assert ten_days.read_now(lambda conn: load_payload(conn, "t4", "s0")) is None
    assert ten_days.read_now(lambda conn: load_payload(conn, "t5", "s0")) == SAID


def test_only_the_tenant_whose_part_is_old_loses_it(database: Database) -> None:
    """Of a trace that two tenants share, the part that is old goes and the other stays."""
    old = span("s1", start_ns=MIDNIGHT, end_ns=MIDNIGHT + 1, payload=SAID)
    new = span("s2", tenant="other", start_ns=MIDNIGHT + 8 * DAY, end_ns=MIDNIGHT + 8 * DAY + 1, payload=SAID)
    database.write_now(StoreSpans([old, new]))
    assert sum(_prune(database), Removed()) == Removed(1, 1, 1)
    _, left = database.read_now(lambda conn: load_trace(conn, "t1", None))
    assert [each.span_id for each in left] == ["s2"]
    assert database.read_now(lambda conn: load_payload(conn, "t1", "s2")) == SAID


def test_a_user_is_forgotten(database: Database) -> None:
    """A user's spans of one tenant go with what was said; other users', and the same name's elsewhere, stay."""
    mine = [span("s1", payload=SAID), span("s2", trace_id="t2", parent_id="s9", payload=SAID)]
    theirs = [
        span("s3", user="u-2", payload=SAID),
        span("s4", user="u-2", parent_id="s1", error_type="x", cost=NanoUsd(5), end_ns=900),
        span("s5", tenant="other", payload=SAID),
    ]
    database.write_now(StoreSpans([*mine, *theirs]))
    found = dict(database.read_now(lambda conn: traces_of_user(conn, "acme", "u-1")))
    assert found == {"t1": 1, "t2": 1}
    assert database.write_now(remove_user("acme", "u-1", sorted(found))) == [Removed(1, 2, 2)]
    _, left = database.read_now(lambda conn: load_trace(conn, "t1", None))
    assert {each.span_id for each in left} == {"s3", "s4", "s5"}
    kept = [database.read_now(partial(load_payload, trace_id="t1", span_id=name)) for name in ("s1", "s3", "s5")]
    assert kept == [None, SAID, SAID]
    [summary] = database.read_now(partial(top_traces, tenant="acme"))
    assert summary == summarise(theirs[:2])
    assert database.read_now(lambda conn: traces_of_user(conn, "acme", "u-1")) == []


def test_removed_rows_leave_room(database: Database) -> None:
    """On SQLite, removed rows leave room in the file for others, and it is said how much; Postgres sees to its own."""
    long = {"said": Random(1).randbytes(900_000)}
    database.write_now(StoreSpans([span(payload=long, start_ns=MIDNIGHT, end_ns=MIDNIGHT + 1)]))
    before = database.read_now(free_bytes)
    _prune(database)
    after = database.read_now(free_bytes)
    assert (before, after) == (None, None) if "postgres" in database.name else (after or 0) > (before or 0) + 500_000
