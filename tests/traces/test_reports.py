"""The spans that the cost, waste and latency reports load from the store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span
from handrail.traces.reports import (
    COMPARED_TRACES,
    MAX_TRACE_SPANS,
    load_cost_sample,
    load_latest_traces,
    spread_evenly,
)
from handrail.traces.store.spans import SpanBatch, load_payloads
from tests.traces.samples import span

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=1)


def make_trace(number: int, *, spans: int = 1, cost: int = 0, tenant: str = "acme") -> list[Span]:
    start_ns = unix_ns(START) + number * 10**9
    return [
        span(
            f"{index + 1:016x}",
            trace_id=f"{number + 1:032x}",
            start_ns=start_ns,
            end_ns=start_ns + 10**6,
            tenant=tenant,
            cost=NanoUsd(cost),
            payload={"input": f"{tenant} {number}"},
        )
        for index in range(spans)
    ]


def open_filled(folder: Path, traces: list[list[Span]]) -> Database:
    database = Database.open("handrail.db", folder)
    database.write_now(SpanBatch(span for trace in traces for span in trace))
    return database


def test_long_traces_are_left_out(tmp_path: Path) -> None:
    """A trace with more spans than the limit is left out of reports that load spans, but counts in the costs."""
    traces = [make_trace(0), make_trace(1, spans=MAX_TRACE_SPANS + 1, cost=7), make_trace(2, spans=MAX_TRACE_SPANS)]
    database = open_filled(tmp_path, traces)
    latest = database.read_now(load_latest_traces(tenant=None, since=START, until=END))
    sample = database.read_now(load_cost_sample(tenant=None, since=START, until=END))
    database.close()
    assert [len(trace) for trace in latest] == [MAX_TRACE_SPANS, 1]
    assert (sample.concentration.traces, sample.concentration.total_traces) == (1, 3)
    assert (len(sample.expensive), len(sample.rest)) == (0, 2)


def test_a_sample_has_a_limit_for_each_side(tmp_path: Path) -> None:
    """With any number of traces, at most the limit is compared on either side."""
    count = 2 * COMPARED_TRACES + 1
    database = open_filled(tmp_path, [make_trace(number, cost=5 if number % 2 else 1) for number in range(2 * count)])
    sample = database.read_now(load_cost_sample(tenant="acme", since=START, until=END))
    database.close()
    assert len(sample.costs) == 2 * count
    assert COMPARED_TRACES // 2 <= len(sample.expensive) <= COMPARED_TRACES
    assert COMPARED_TRACES // 2 <= len(sample.rest) <= COMPARED_TRACES


def test_payloads_belong_to_tenants(tmp_path: Path) -> None:
    """In a trace with spans of two tenants, each tenant gets its own payloads only, and the operator all."""
    trace_id = f"{1:032x}"
    theirs = span(f"{9:016x}", trace_id=trace_id, tenant="globex", payload={"input": "globex 0"})
    database = open_filled(tmp_path, [make_trace(0), [theirs]])
    payloads = {tenant: database.read_now(load_payloads(trace_id, tenant)) for tenant in ("acme", "globex", "x", None)}
    database.close()
    mine = {f"{1:016x}": {"input": "acme 0"}}
    assert payloads == {
        "acme": mine,
        "globex": {theirs.span_id: {"input": "globex 0"}},
        "x": {},
        None: {**mine, theirs.span_id: {"input": "globex 0"}},
    }


@given(st.lists(st.integers(), max_size=30), st.integers(1, 12))
def test_a_sample_is_spread_evenly(rows: list[int], count: int) -> None:
    """A sample has at most `count` rows in order, starts with the first, and has all rows if they fit."""
    sample = spread_evenly(rows, count)
    assert len(sample) <= count
    assert list(sample[:1]) == rows[:1]
    assert len(rows) > count or list(sample) == rows
