"""Queries over many traces agree with counting the spans, on every engine."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span
from handrail.traces.store.rollup_queries import (
    latency_over_time,
    spend_by,
    spend_over_time,
    step_latencies,
    ungoverned_spend,
)
from handrail.traces.store.spans import SpanBatch
from handrail.traces.store.summaries import TraceSummary, summarise
from handrail.traces.store.trace_queries import TraceOrder, cursor_of, missing_spans, top_traces, trace_costs
from tests.traces.samples import DAY, HOUR, MIDNIGHT, first_of_each_id, span, spans

ALWAYS: dict[str, Any] = {"since": from_unix_ns(0), "until": from_unix_ns(MIDNIGHT + 1_000 * DAY)}
TENANTS = ("acme", "other")
KEYS: dict[str, Callable[[Span], Any]] = {
    "tenant": lambda span: (span.tenant, None),
    "user": lambda span: (span.user, span.tenant),
    "agent": lambda span: (span.agent, None),
    "model": lambda span: (span.model or "", None),
    "fingerprint": lambda span: (span.fingerprint or "", None),
    "day": lambda span: (from_unix_ns(span.start_ns).date().isoformat(), None),
}
times = st.builds(
    lambda hours, rest: from_unix_ns(MIDNIGHT + hours * HOUR + rest),
    st.integers(-50, 50),
    st.just(0) | st.integers(0, HOUR - 1),
)
ranges = st.tuples(times, times).map(sorted)
_counter = itertools.count()


class Example:
    """Spans in order of arrival, with tenants and traces of their own in a store shared by all examples."""

    def __init__(self, database: Database, batches: Sequence[Sequence[Span]]) -> None:
        number = next(_counter)
        self.database = database
        self.tenants = [f"{tenant}-{number}" for tenant in TENANTS]
        mine = [
            [replace(span, tenant=f"{span.tenant}-{number}", trace_id=f"{span.trace_id}-{number}") for span in batch]
            for batch in batches
        ]
        self.new = [database.write_now(SpanBatch(batch))[0] for batch in mine]
        self.kept = first_of_each_id(span for batch in mine for span in batch)

    def run(self, query: Callable[..., Any], **arguments: Any) -> Any:
        return self.database.read_now(query(**arguments))

    def between(self, tenant: str, since: datetime, until: datetime) -> list[Span]:
        return [span for span in _within(self.kept, since, until) if span.tenant == tenant]


def _within(group: Iterable[Span], since: datetime, until: datetime) -> list[Span]:
    """The spans that started in the hours that the range touches."""
    first, last = unix_ns(since) // HOUR * HOUR, -(-unix_ns(until) // HOUR) * HOUR
    return [span for span in group if first <= span.start_ns < last]


batches = st.lists(st.lists(spans(TENANTS), max_size=12), max_size=4)
on_one_store = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _near(value: int, exact: int) -> bool:
    return abs(value - exact) <= exact * 0.025 + 0.5


def _exact(group: Sequence[Span], share: float) -> int:
    return sorted(span.duration_ns for span in group)[math.ceil(len(group) * share) - 1]


def _is_latency_of(answer: Any, group: Sequence[Span]) -> bool:
    whole = (len(group), sum(span.error_type is not None for span in group), sum(span.duration_ns for span in group))
    percentiles = ((answer.p50_ns, 0.5), (answer.p95_ns, 0.95), (answer.p99_ns, 0.99))
    return (answer.count, answer.errors, answer.total_ns) == whole and all(
        _near(value, _exact(group, share)) for value, share in percentiles
    )


def _grouped(group: Iterable[Span], key: Callable[[Span], Any]) -> dict[Any, list[Span]]:
    groups: dict[Any, list[Span]] = {}
    for member in group:
        groups.setdefault(key(member), []).append(member)
    return groups


def _spends(span: Span) -> bool:
    usage = span.usage
    tokens = usage.input or usage.output or usage.cache_read or usage.cache_write
    return bool(span.kind == "model" or tokens or span.cost or span.reported_cost)


def _spent(group: Sequence[Span]) -> dict[str, int]:
    return {
        "requests": sum(span.kind == "model" for span in group),
        "input_tokens": sum(span.usage.input for span in group),
        "output_tokens": sum(span.usage.output for span in group),
        "cache_read_tokens": sum(span.usage.cache_read for span in group),
        "cache_write_tokens": sum(span.usage.cache_write for span in group),
        "cost": sum(span.cost for span in group),
        "reported_cost": sum(span.reported_cost or 0 for span in group),
        "ungoverned": sum(span.cost for span in group if span.held is None),
    }


def _fields(answer: Any) -> dict[str, int]:
    return {name: getattr(answer, name) for name in _spent([])}


def test_steps_are_those_of_the_spans(database: Database) -> None:
    """Count, errors, total and percentiles of each step are those of the spans, in any order and with duplicates."""

    all_spans: list[Span] = []

    @on_one_store
    @given(batches, ranges)
    def check(batches: list[list[Span]], when: list[datetime]) -> None:
        example = Example(database, batches)
        assert sum(example.new) == len(example.kept)
        all_spans.extend(example.kept)
        of_all = _grouped(_within(all_spans, *when), lambda span: (span.kind, span.name))
        answers = example.run(step_latencies, tenant=None, since=when[0], until=when[1])
        assert {(span.kind, span.name) for span in answers} == of_all.keys()
        assert all(_is_latency_of(span, of_all[span.kind, span.name]) for span in answers)
        for tenant in example.tenants:
            mine = _grouped(example.between(tenant, *when), lambda span: (span.kind, span.name))
            answers = example.run(step_latencies, tenant=tenant, since=when[0], until=when[1])
            assert {(span.kind, span.name) for span in answers} == mine.keys()
            assert all(_is_latency_of(span, mine[span.kind, span.name]) for span in answers)
            totals = [span.total_ns for span in answers]
            assert totals == sorted(totals, reverse=True)

    check()


def test_spend_is_that_of_the_spans(database: Database) -> None:
    """Spend by any key is the sum over the spans, each counted once."""

    all_spans: list[Span] = []

    @on_one_store
    @given(batches, ranges, st.sampled_from(sorted(KEYS)))
    def check(batches: list[list[Span]], when: list[datetime], key: str) -> None:
        example = Example(database, batches)
        all_spans.extend(example.kept)
        of_all = _grouped(filter(_spends, _within(all_spans, *when)), KEYS[key])
        answers = example.run(spend_by, key=key, tenant=None, since=when[0], until=when[1], limit=1_000)
        assert {(span.key, span.tenant): _fields(span) for span in answers} == {
            name: _spent(group) for name, group in of_all.items()
        }
        for tenant in example.tenants:
            mine = _grouped(filter(_spends, example.between(tenant, *when)), KEYS[key])
            answers = example.run(spend_by, key=key, tenant=tenant, since=when[0], until=when[1])
            assert {(span.key, span.tenant): _fields(span) for span in answers} == {
                name: _spent(group) for name, group in mine.items()
            }
            order = [span.key for span in answers] if key == "day" else [-span.cost for span in answers]
            assert order == sorted(order)

    check()


def test_time_is_divided_into_hours_and_days(database: Database) -> None:
    """Latency and spend over time are computed from the spans that started in each hour or day."""

    @on_one_store
    @given(batches, ranges, st.sampled_from(("hour", "day")))
    def check(batches: list[list[Span]], when: list[datetime], bucket: str) -> None:
        example = Example(database, batches)
        length = HOUR if bucket == "hour" else DAY
        [tenant, _] = example.tenants
        arguments: dict[str, Any] = {"tenant": tenant, "since": when[0], "until": when[1], "bucket": bucket}
        mine = _grouped(example.between(tenant, *when), lambda span: from_unix_ns(span.start_ns // length * length))
        runs = {at: [span for span in group if span.kind == "agent"] for at, group in mine.items()}
        timed = example.run(latency_over_time, **arguments)
        assert [span.at for span in timed] == sorted(at for at, group in runs.items() if group)
        assert all(_is_latency_of(span, runs[span.at]) for span in timed)
        spent = {at: [span for span in group if _spends(span)] for at, group in mine.items()}
        answers = example.run(spend_over_time, **arguments)
        assert [(span.at, _fields(span)) for span in answers] == [
            (at, _spent(spent[at])) for at in sorted(spent) if spent[at]
        ]

    check()


def test_summaries_are_those_of_the_spans(database: Database) -> None:
    """Each tenant's summary of each trace is that of its spans in any order, and no trace is listed twice."""

    @on_one_store
    @given(batches)
    def check(batches: list[list[Span]]) -> None:
        example = Example(database, batches)
        for tenant in example.tenants:
            mine = _grouped((span for span in example.kept if span.tenant == tenant), lambda span: span.trace_id)
            listed = example.run(top_traces, tenant=tenant, limit=100)
            assert {span.trace_id: span for span in listed} == {name: summarise(mine[name]) for name in mine}
            assert len(listed) == len(mine)
            for trace_id, group in mine.items():
                here = {span.span_id for span in example.kept if span.trace_id == trace_id}
                lost = {span.parent_id for span in group} - here - {None}
                assert example.run(missing_spans, trace_id=trace_id, tenant=tenant) == len(lost)

    check()


@pytest.fixture
def shop(database: Database) -> Database:
    """Twelve traces of three tenants, two users each, with costs, durations and errors that repeat."""
    database.write_now(
        SpanBatch(
            span(
                trace_id=f"t{n:02}",
                name=f"Invoke {n % 3}",
                tenant=f"tenant-{n % 3}",
                user=f"u-{n % 2}",
                agent=f"agent-{n % 4}",
                fingerprint=f"f{n % 2}",
                start_ns=MIDNIGHT + n % 5 * HOUR,
                end_ns=MIDNIGHT + n % 5 * HOUR + n % 4,
                cost=NanoUsd(n % 4 * 10),
                error_type="x" if n % 3 == 0 else None,
                held=None if n % 2 else NanoUsd(5),
                model="m",
            )
            for n in range(12)
        )
    )
    return database


def _listed(database: Database, **filters: Any) -> list[TraceSummary]:
    return database.read_now(top_traces(**{"tenant": None, "limit": 100, **filters}))


VALUES: dict[TraceOrder, Callable[[TraceSummary], int]] = {
    "started": lambda trace: trace.start_ns,
    "cost": lambda trace: trace.cost,
    "duration": lambda trace: trace.duration_ns,
    "errors": lambda trace: trace.errors,
}


def test_pages_together_are_the_whole_list(shop: Database) -> None:
    """Traces come in their order, and pages of any size continue where the previous one ended."""
    for (order, value), tenant, size in itertools.product(VALUES.items(), (None, "tenant-1"), (1, 2, 5)):
        whole = _listed(shop, order=order, tenant=tenant)
        assert len(whole) == (12 if tenant is None else 4)
        values = [value(trace) for trace in whole]
        assert values == sorted(values, reverse=True)
        pages: list[TraceSummary] = []
        while page := _listed(
            shop, order=order, tenant=tenant, limit=size, after=cursor_of(pages[-1], order) if pages else None
        ):
            pages += page
        assert pages == whole


FILTERED: list[tuple[dict[str, Any], list[int]]] = [
    ({"agent": "agent-1"}, [1, 5, 9]),
    ({"user": "u-1"}, [1, 3, 5, 7, 9, 11]),
    ({"fingerprint": "f0", "agent": "agent-2"}, [2, 6, 10]),
    ({"text": "INVOKE 2"}, [2, 5, 8, 11]),
    ({"text": "T1"}, [10, 11]),
    ({"text": "%"}, []),
    ({"since": from_unix_ns(MIDNIGHT + 3 * HOUR)}, [3, 4, 8, 9]),
    ({"until": from_unix_ns(MIDNIGHT + HOUR)}, [0, 5, 10]),
]


def test_filters_of_a_list(shop: Database) -> None:
    """Lists can be filtered by agent, user, fingerprint, name, prefix of the id and range, in every order."""
    for order, (filters, numbers) in itertools.product(VALUES, FILTERED):
        listed = _listed(shop, order=order, **filters)
        assert sorted(trace.trace_id for trace in listed) == [f"t{number:02}" for number in numbers]


def test_costs_are_read_as_a_stream(shop: Database) -> None:
    """Costs are in descending order, of traces that started in the range, and of one agent if given."""

    def costs(conn: Connection) -> list[tuple[str, int]]:
        rows = trace_costs(tenant="tenant-1", since=from_unix_ns(0), until=from_unix_ns(MIDNIGHT + 3 * HOUR))(conn)
        return [(row.trace_id, row.cost) for row in rows]

    assert shop.read_now(costs) == [("t07", 30), ("t10", 20), ("t01", 10)]
    [only] = shop.read_now(lambda conn: list(trace_costs(tenant="tenant-1", agent="agent-2", **ALWAYS)(conn)))
    assert (only.trace_id, only.tenant, only.cost) == ("t10", "tenant-1", 20)


def test_results_over_all_tenants(shop: Database) -> None:
    """Without a tenant, a result covers all of them."""
    [step] = shop.read_now(step_latencies(tenant=None, **ALWAYS))[:1]
    assert (step.count, step.errors) == (4, 4) if step.name == "Invoke 0" else (4, 0)
    rows = shop.read_now(spend_by(key="tenant", tenant=None, **ALWAYS))
    assert {row.key: row.requests for row in rows} == {"tenant-0": 4, "tenant-1": 4, "tenant-2": 4}
    users = shop.read_now(spend_by(key="user", tenant=None, limit=4, **ALWAYS))
    assert len(users) == 4
    assert all(row.tenant for row in users)


@operation
def _collected(conn: Connection, query: Callable[..., Operation[Iterable[Any]]]) -> list[Any]:
    return list(query(tenant=None, **ALWAYS)(conn))


def test_an_empty_store(database: Database) -> None:
    """Every query has an empty result if no spans are stored."""
    querys: list[Callable[..., Operation[Iterable[Any]]]] = [step_latencies, trace_costs, ungoverned_spend]
    for query in querys:
        assert database.read_now(_collected(query)) == []
    assert database.read_now(spend_by(key="user", tenant=None, **ALWAYS)) == []


def test_ungoverned_spend(shop: Database) -> None:
    """Spend without a hold is listed by tenant, agent and model, highest first, without free requests."""
    rows = shop.read_now(ungoverned_spend(tenant=None, **ALWAYS))
    assert [row.cost for row in rows] == [30, 30, 30, 10, 10, 10]
    [first, second] = shop.read_now(ungoverned_spend(tenant="tenant-1", **ALWAYS))
    assert (first.agent, first.model, first.requests, first.cost) == ("agent-3", "m", 1, 30)
    assert (second.agent, second.cost) == ("agent-1", 10)


def test_latency_of_an_agent_or_step(shop: Database) -> None:
    """Latencies can be limited to an agent and a step."""
    filtered: list[tuple[Callable[..., Any], dict[str, Any], int]] = [
        (step_latencies, {"agent": "agent-1"}, 3),
        (latency_over_time, {"agent": "agent-1", "bucket": "hour", "kind": "model"}, 3),
        (latency_over_time, {"bucket": "day", "kind": "model", "name": "Invoke 1"}, 4),
    ]
    for query, filters, count in filtered:
        rows = shop.read_now(query(tenant=None, **ALWAYS, **filters))
        assert sum(row.count for row in rows) == count


def test_spend_of_one_agent_or_user(shop: Database) -> None:
    """Spend can be limited to one agent, and to one user."""
    by_agent = shop.read_now(spend_by(key="user", tenant=None, agent="agent-1", **ALWAYS))
    assert sum(row.requests for row in by_agent) == 3
    [day] = shop.read_now(spend_over_time(tenant="tenant-0", bucket="day", user="u-1", **ALWAYS))
    assert (day.at, day.requests) == (from_unix_ns(MIDNIGHT), 2)


def test_a_range_of_hours_is_widened(shop: Database) -> None:
    """A range within one hour covers that whole hour; an empty range has no spans."""
    inside: dict[str, Any] = {
        "since": from_unix_ns(MIDNIGHT + HOUR // 2),
        "until": from_unix_ns(MIDNIGHT + HOUR // 2 + 10**9),
    }
    steps = shop.read_now(step_latencies(tenant=None, **inside))
    assert sum(step.count for step in steps) == 3
    nothing: dict[str, Any] = {"since": from_unix_ns(MIDNIGHT), "until": from_unix_ns(MIDNIGHT) - timedelta(days=3)}
    assert shop.read_now(step_latencies(tenant=None, **nothing)) == []
