"""What the questions over many traces answer, whatever the engine: what counting the spans themselves would."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from handrail.kernel.clock import from_unix_ns, unix_ns
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span
from handrail.traces.store.queries import (
    Order,
    latency_over_time,
    missing_spans,
    place_of,
    spend_by,
    spend_over_time,
    step_latencies,
    top_traces,
    trace_costs,
    ungoverned_spend,
)
from handrail.traces.store.spans import StoreSpans
from handrail.traces.store.summaries import TraceSummary, summarise
from tests.traces.samples import DAY, HOUR, MIDNIGHT, kept, span, spans

ALWAYS: dict[str, Any] = {"since": from_unix_ns(0), "until": from_unix_ns(MIDNIGHT + 1_000 * DAY)}
TENANTS = ("acme", "other")
KEYS: dict[str, Callable[[Span], Any]] = {
    "tenant": lambda each: (each.tenant, None),
    "user": lambda each: (each.user, each.tenant),
    "agent": lambda each: (each.agent, None),
    "model": lambda each: (each.model or "", None),
    "fingerprint": lambda each: (each.fingerprint or "", None),
    "day": lambda each: (from_unix_ns(each.start_ns).date().isoformat(), None),
}
moments = st.builds(
    lambda hours, rest: from_unix_ns(MIDNIGHT + hours * HOUR + rest),
    st.integers(-50, 50),
    st.just(0) | st.integers(0, HOUR - 1),
)
ranges = st.tuples(moments, moments).map(sorted)
_counter = itertools.count()


class Example:
    """Spans as they came, in a store that other examples use too: each has tenants and traces of its own."""

    def __init__(self, database: Database, batches: Sequence[Sequence[Span]]) -> None:
        number = next(_counter)
        self.database = database
        self.tenants = [f"{tenant}-{number}" for tenant in TENANTS]
        mine = [
            [replace(each, tenant=f"{each.tenant}-{number}", trace_id=f"{each.trace_id}-{number}") for each in batch]
            for batch in batches
        ]
        self.new = [database.write_now(StoreSpans(batch))[0] for batch in mine]
        self.kept = kept(each for batch in mine for each in batch)

    def ask(self, question: Callable[..., Any], **asked: Any) -> Any:
        return self.database.read_now(lambda conn: question(conn, **asked))

    def between(self, tenant: str, since: datetime, until: datetime) -> list[Span]:
        return [each for each in _within(self.kept, since, until) if each.tenant == tenant]


def _within(found: Iterable[Span], since: datetime, until: datetime) -> list[Span]:
    """The spans that began in the hours that the range touches."""
    first, last = unix_ns(since) // HOUR * HOUR, -(-unix_ns(until) // HOUR) * HOUR
    return [each for each in found if first <= each.start_ns < last]


batches = st.lists(st.lists(spans(TENANTS), max_size=12), max_size=4)
on_one_store = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _near(value: int, exact: int) -> bool:
    return abs(value - exact) <= exact * 0.025 + 0.5


def _exact(found: Sequence[Span], share: float) -> int:
    return sorted(each.duration_ns for each in found)[math.ceil(len(found) * share) - 1]


def _is_latency_of(answer: Any, found: Sequence[Span]) -> bool:
    whole = (len(found), sum(each.error_type is not None for each in found), sum(each.duration_ns for each in found))
    percentiles = ((answer.p50_ns, 0.5), (answer.p95_ns, 0.95), (answer.p99_ns, 0.99))
    return (answer.count, answer.errors, answer.total_ns) == whole and all(
        _near(value, _exact(found, share)) for value, share in percentiles
    )


def _grouped(found: Iterable[Span], key: Callable[[Span], Any]) -> dict[Any, list[Span]]:
    groups: dict[Any, list[Span]] = {}
    for each in found:
        groups.setdefault(key(each), []).append(each)
    return groups


def _spends(each: Span) -> bool:
    usage = each.usage
    tokens = usage.input or usage.output or usage.cache_read or usage.cache_write
    return bool(each.kind == "model" or tokens or each.cost or each.reported_cost)


def _spent(found: Sequence[Span]) -> dict[str, int]:
    return {
        "requests": sum(each.kind == "model" for each in found),
        "input_tokens": sum(each.usage.input for each in found),
        "output_tokens": sum(each.usage.output for each in found),
        "cache_read_tokens": sum(each.usage.cache_read for each in found),
        "cache_write_tokens": sum(each.usage.cache_write for each in found),
        "cost": sum(each.cost for each in found),
        "reported_cost": sum(each.reported_cost or 0 for each in found),
        "ungoverned": sum(each.cost for each in found if each.held is None),
    }


def _fields(answer: Any) -> dict[str, int]:
    return {name: getattr(answer, name) for name in _spent([])}


def test_steps_are_those_of_the_spans(database: Database) -> None:
    """Count, errors, total and percentiles of each step are those of the spans, in any order and with duplicates."""

    everybodys: list[Span] = []

    @on_one_store
    @given(batches, ranges)
    def check(found: list[list[Span]], when: list[datetime]) -> None:
        example = Example(database, found)
        assert sum(example.new) == len(example.kept)
        everybodys.extend(example.kept)
        of_all = _grouped(_within(everybodys, *when), lambda each: (each.kind, each.name))
        answers = example.ask(step_latencies, tenant=None, since=when[0], until=when[1])
        assert {(each.kind, each.name) for each in answers} == of_all.keys()
        assert all(_is_latency_of(each, of_all[each.kind, each.name]) for each in answers)
        for tenant in example.tenants:
            mine = _grouped(example.between(tenant, *when), lambda each: (each.kind, each.name))
            answers = example.ask(step_latencies, tenant=tenant, since=when[0], until=when[1])
            assert {(each.kind, each.name) for each in answers} == mine.keys()
            assert all(_is_latency_of(each, mine[each.kind, each.name]) for each in answers)
            totals = [each.total_ns for each in answers]
            assert totals == sorted(totals, reverse=True)

    check()


def test_spend_is_that_of_the_spans(database: Database) -> None:
    """Spend by any key is the sum over the spans, each counted once."""

    everybodys: list[Span] = []

    @on_one_store
    @given(batches, ranges, st.sampled_from(sorted(KEYS)))
    def check(found: list[list[Span]], when: list[datetime], key: str) -> None:
        example = Example(database, found)
        everybodys.extend(example.kept)
        of_all = _grouped(filter(_spends, _within(everybodys, *when)), KEYS[key])
        answers = example.ask(spend_by, key=key, tenant=None, since=when[0], until=when[1], limit=1_000)
        assert {(each.key, each.tenant): _fields(each) for each in answers} == {
            name: _spent(group) for name, group in of_all.items()
        }
        for tenant in example.tenants:
            mine = _grouped(filter(_spends, example.between(tenant, *when)), KEYS[key])
            answers = example.ask(spend_by, key=key, tenant=tenant, since=when[0], until=when[1])
            assert {(each.key, each.tenant): _fields(each) for each in answers} == {
                name: _spent(group) for name, group in mine.items()
            }
            order = [each.key for each in answers] if key == "day" else [-each.cost for each in answers]
            assert order == sorted(order)

    check()


def test_time_is_cut_into_hours_and_days(database: Database) -> None:
    """Latency and spend over time are those of the spans that began in each hour or day."""

    @on_one_store
    @given(batches, ranges, st.sampled_from(("hour", "day")))
    def check(found: list[list[Span]], when: list[datetime], bucket: str) -> None:
        example = Example(database, found)
        length = HOUR if bucket == "hour" else DAY
        [tenant, _] = example.tenants
        asked: dict[str, Any] = {"tenant": tenant, "since": when[0], "until": when[1], "bucket": bucket}
        mine = _grouped(example.between(tenant, *when), lambda each: from_unix_ns(each.start_ns // length * length))
        runs = {at: [each for each in group if each.kind == "agent"] for at, group in mine.items()}
        timed = example.ask(latency_over_time, **asked)
        assert [each.at for each in timed] == sorted(at for at, group in runs.items() if group)
        assert all(_is_latency_of(each, runs[each.at]) for each in timed)
        spent = {at: [each for each in group if _spends(each)] for at, group in mine.items()}
        answers = example.ask(spend_over_time, **asked)
        assert [(each.at, _fields(each)) for each in answers] == [
            (at, _spent(spent[at])) for at in sorted(spent) if spent[at]
        ]

    check()


def test_summaries_are_those_of_the_spans(database: Database) -> None:
    """Each tenant's summary of each trace is that of its spans, whichever came first, and no trace is listed twice."""

    @on_one_store
    @given(batches)
    def check(found: list[list[Span]]) -> None:
        example = Example(database, found)
        for tenant in example.tenants:
            mine = _grouped((each for each in example.kept if each.tenant == tenant), lambda each: each.trace_id)
            listed = example.ask(top_traces, tenant=tenant, limit=100)
            assert {each.trace_id: each for each in listed} == {name: summarise(mine[name]) for name in mine}
            assert len(listed) == len(mine)
            for trace_id, group in mine.items():
                here = {each.span_id for each in example.kept if each.trace_id == trace_id}
                lost = {each.parent_id for each in group} - here - {None}
                assert example.ask(missing_spans, trace_id=trace_id, tenant=tenant) == len(lost)

    check()


@pytest.fixture
def shop(database: Database) -> Database:
    """Twelve traces of three tenants, two users each, with costs, durations and errors that come again."""
    database.write_now(
        StoreSpans(
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


def _listed(database: Database, **asked: Any) -> list[TraceSummary]:
    return database.read_now(partial(top_traces, **{"tenant": None, "limit": 100, **asked}))


VALUES: dict[Order, Callable[[TraceSummary], int]] = {
    "started": lambda trace: trace.start_ns,
    "cost": lambda trace: trace.cost,
    "duration": lambda trace: trace.duration_ns,
    "errors": lambda trace: trace.errors,
}


def test_pages_put_together_are_the_whole_list(shop: Database) -> None:
    """Traces come with most of the order first, and pages of any size go on where the one before ended."""
    for (order, value), tenant, size in itertools.product(VALUES.items(), (None, "tenant-1"), (1, 2, 5)):
        whole = _listed(shop, order=order, tenant=tenant)
        assert len(whole) == (12 if tenant is None else 4)
        values = [value(trace) for trace in whole]
        assert values == sorted(values, reverse=True)
        pages: list[TraceSummary] = []
        while page := _listed(
            shop, order=order, tenant=tenant, limit=size, after=place_of(pages[-1], order) if pages else None
        ):
            pages += page
        assert pages == whole


NARROWED: list[tuple[dict[str, Any], list[int]]] = [
    ({"agent": "agent-1"}, [1, 5, 9]),
    ({"user": "u-1"}, [1, 3, 5, 7, 9, 11]),
    ({"fingerprint": "f0", "agent": "agent-2"}, [2, 6, 10]),
    ({"text": "INVOKE 2"}, [2, 5, 8, 11]),
    ({"text": "T1"}, [10, 11]),
    ({"text": "%"}, []),
    ({"since": from_unix_ns(MIDNIGHT + 3 * HOUR)}, [3, 4, 8, 9]),
    ({"until": from_unix_ns(MIDNIGHT + HOUR)}, [0, 5, 10]),
]


def test_a_list_is_narrowed(shop: Database) -> None:
    """By agent, user, fingerprint, name, begin of the id and range, in every order."""
    for order, (asked, numbers) in itertools.product(VALUES, NARROWED):
        found = _listed(shop, order=order, **asked)
        assert sorted(trace.trace_id for trace in found) == [f"t{number:02}" for number in numbers]


def test_costs_are_read_as_a_stream(shop: Database) -> None:
    """Costs come dearest first, of the traces that began in the range, of one agent where that is asked."""

    def costs(conn: Connection) -> list[tuple[str, int]]:
        found = trace_costs(conn, tenant="tenant-1", since=from_unix_ns(0), until=from_unix_ns(MIDNIGHT + 3 * HOUR))
        return [(each.trace_id, each.cost) for each in found]

    assert shop.read_now(costs) == [("t07", 30), ("t10", 20), ("t01", 10)]
    [only] = shop.read_now(lambda conn: list(trace_costs(conn, tenant="tenant-1", agent="agent-2", **ALWAYS)))
    assert (only.trace_id, only.tenant, only.cost) == ("t10", "tenant-1", 20)


def test_the_operator_sees_every_tenant(shop: Database) -> None:
    """Without a tenant an answer is of all of them."""
    [step] = shop.read_now(lambda conn: step_latencies(conn, tenant=None, **ALWAYS))[:1]
    assert (step.count, step.errors) == (4, 4) if step.name == "Invoke 0" else (4, 0)
    rows = shop.read_now(lambda conn: spend_by(conn, key="tenant", tenant=None, **ALWAYS))
    assert {row.key: row.requests for row in rows} == {"tenant-0": 4, "tenant-1": 4, "tenant-2": 4}
    users = shop.read_now(lambda conn: spend_by(conn, key="user", tenant=None, limit=4, **ALWAYS))
    assert len(users) == 4
    assert all(row.tenant for row in users)


def _listing(question: Callable[..., Iterable[Any]], conn: Connection) -> list[Any]:
    return list(question(conn, tenant=None, **ALWAYS))


def test_an_empty_store_answers(database: Database) -> None:
    """Every question of a store without spans has an empty answer."""
    questions: list[Callable[..., Iterable[Any]]] = [step_latencies, trace_costs, ungoverned_spend]
    for question in questions:
        assert database.read_now(partial(_listing, question)) == []
    assert database.read_now(lambda conn: spend_by(conn, key="user", tenant=None, **ALWAYS)) == []


def test_spend_around_the_ceilings(shop: Database) -> None:
    """What nobody held money for is listed by tenant, agent and model, the dearest first; what cost nothing is not."""
    rows = shop.read_now(lambda conn: ungoverned_spend(conn, tenant=None, **ALWAYS))
    assert [row.cost for row in rows] == [30, 30, 30, 10, 10, 10]
    [first, second] = shop.read_now(lambda conn: ungoverned_spend(conn, tenant="tenant-1", **ALWAYS))
    assert (first.agent, first.model, first.requests, first.cost) == ("agent-3", "m", 1, 30)
    assert (second.agent, second.cost) == ("agent-1", 10)


def test_questions_are_narrowed_to_an_agent_or_step(shop: Database) -> None:
    """Latencies are those of the agent and step that are asked for."""
    narrowed: list[tuple[Callable[..., Any], dict[str, Any], int]] = [
        (step_latencies, {"agent": "agent-1"}, 3),
        (latency_over_time, {"agent": "agent-1", "bucket": "hour", "kind": "model"}, 3),
        (latency_over_time, {"bucket": "day", "kind": "model", "name": "Invoke 1"}, 4),
    ]
    for question, asked, count in narrowed:
        found = shop.read_now(partial(question, tenant=None, **ALWAYS, **asked))
        assert sum(each.count for each in found) == count


def test_spend_of_one_agent_or_user(shop: Database) -> None:
    """Spend can be asked for one agent, and for one user."""
    by_agent = shop.read_now(lambda conn: spend_by(conn, key="user", tenant=None, agent="agent-1", **ALWAYS))
    assert sum(row.requests for row in by_agent) == 3
    [day] = shop.read_now(lambda conn: spend_over_time(conn, tenant="tenant-0", bucket="day", user="u-1", **ALWAYS))
    assert (day.at, day.requests) == (from_unix_ns(MIDNIGHT), 2)


def test_a_range_of_hours_is_widened(shop: Database) -> None:
    """A range within one hour is read as that hour; an empty one has no spans."""
    inside: dict[str, Any] = {
        "since": from_unix_ns(MIDNIGHT + HOUR // 2),
        "until": from_unix_ns(MIDNIGHT + HOUR // 2 + 10**9),
    }
    found = shop.read_now(lambda conn: step_latencies(conn, tenant=None, **inside))
    assert sum(step.count for step in found) == 3
    nothing: dict[str, Any] = {"since": from_unix_ns(MIDNIGHT), "until": from_unix_ns(MIDNIGHT) - timedelta(days=3)}
    assert shop.read_now(lambda conn: step_latencies(conn, tenant=None, **nothing)) == []
