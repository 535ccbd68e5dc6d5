"""The store of traces, on every engine."""

from typing import Any

import pytest

from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Usage
from handrail.traces.store.spans import SpanBatch, load_payload, load_trace
from handrail.traces.store.summaries import TraceSummary
from handrail.traces.store.trace_queries import top_traces
from tests.traces.samples import span


async def listed(database: Database, **filters: Any) -> list[TraceSummary]:
    return await database.read(top_traces(**{"tenant": None, "limit": 100, **filters}))


async def test_a_span_is_loaded_as_stored(database: Database) -> None:
    """Every field of a span but its payload is loaded as it was stored."""
    stored = span(
        parent_id="s0",
        error_type="timeout",
        provider="anthropic",
        model="claude",
        usage=Usage(input=4, output=3, cache_read=2, cache_write=1),
        cost=NanoUsd(2**60),
        reported_cost=NanoUsd(3),
        held=NanoUsd(0),
        conversation_id="c1",
        first_token_ns=5,
        fingerprint="f1",
        attempt=2,
        retry_of="s0",
        attributes={"text": "é\0", "list": [1, 2.5, None], "flag": True},
    )
    await database.write(SpanBatch([stored]))
    _, loaded_spans = await database.read(load_trace(trace_id="t1", tenant=None))
    assert loaded_spans == [stored]


async def test_payloads(database: Database) -> None:
    """A payload is loaded by the id of its span."""
    await database.write(SpanBatch([span("s1", payload={"input": "hé\0llo", "parts": [1]}), span("s2")]))
    assert await database.read(load_payload(trace_id="t1", span_id="s1")) == {"input": "hé\0llo", "parts": [1]}
    assert await database.read(load_payload(trace_id="t1", span_id="s2")) is None
    assert await database.read(load_payload(trace_id="t2", span_id="s1")) is None


async def test_any_payload(database: Database) -> None:
    """Values that JSON cannot represent are stored as well as possible, and all others unchanged."""
    cycle: list[Any] = []
    cycle.append(cycle)
    payload = {"half": "\ud800", "bytes": b"\xff", "cycle": cycle, "object": 1j, "plain": "yes"}
    await database.write(SpanBatch([span(payload=payload)]))
    loaded = await database.read(load_payload(trace_id="t1", span_id="s1"))
    assert loaded == {"half": "?", "bytes": "_w==", "cycle": ["[[...]]"], "object": "1j", "plain": "yes"}


async def test_storing_twice(database: Database) -> None:
    """Storing a span again changes neither the span, its payload nor the summary."""
    first = span(cost=NanoUsd(5), payload={"input": "first"})
    again = span(cost=NanoUsd(9), payload={"input": "again"}, name="other")
    assert await database.write(SpanBatch([first])) == [1]
    before = await listed(database)
    assert await database.write(SpanBatch([again, again])) == [0]
    assert await listed(database) == before
    _, [loaded_spans] = await database.read(load_trace(trace_id="t1", tenant=None))
    assert (loaded_spans.name, loaded_spans.cost) == ("chat", 5)
    assert await database.read(load_payload(trace_id="t1", span_id="s1")) == {"input": "first"}


async def test_twice_in_one_batch(database: Database) -> None:
    """Of two spans with one id in a batch, the first is stored and counted."""
    assert await database.write(SpanBatch([span(), span(name="other"), span("s2")])) == [2]
    assert [trace.spans for trace in await listed(database)] == [2]


async def test_summaries(database: Database) -> None:
    """A summary adds up its spans over batches in any order, from the first start to the last end."""
    used = Usage(input=10, output=1)
    late = [span("s3", start_ns=50, end_ns=90), span("s1", cost=NanoUsd(1_000))]
    await database.write(SpanBatch([span("s1", cost=NanoUsd(7), usage=used), span("s2", error_type="x")]))
    await database.write(SpanBatch([*late, span("s4", end_ns=900, usage=used, cost=NanoUsd(3), error_type="y")]))
    [summary] = await listed(database)
    assert summary == TraceSummary(
        trace_id="t1",
        tenant="acme",
        user="u-1",
        agent="a",
        start_ns=50,
        end_ns=900,
        spans=4,
        errors=2,
        input_tokens=20,
        output_tokens=2,
        cost=NanoUsd(10),
        name="chat",
        conversation_id=None,
        fingerprint=None,
    )
    loaded, loaded_spans = await database.read(load_trace(trace_id="t1", tenant="acme"))
    assert loaded == summary
    assert [span_.span_id for span_ in loaded_spans] == ["s3", "s1", "s2", "s4"]


async def test_some_new_and_some_old(database: Database) -> None:
    """Of a batch with stored and new spans, only the new ones are stored, counted and added up."""
    await database.write(SpanBatch([span("s2", cost=NanoUsd(1), payload={"input": "first"})]))
    batch = [span(f"s{n}", cost=NanoUsd(10), payload={"input": "again"}) for n in range(4)]
    assert await database.write(SpanBatch(batch)) == [3]
    [trace] = await listed(database)
    assert (trace.spans, trace.cost) == (4, 31)
    payloads = [await database.read(load_payload(trace_id="t1", span_id=f"s{n}")) for n in range(4)]
    assert payloads == [{"input": "first" if n == 2 else "again"} for n in range(4)]


async def test_a_late_root_gives_its_name(database: Database) -> None:
    """A trace is named after its root, even if that arrives last, and preferably after one that names its agent."""
    child = span("s1", parent_id="s0", agent="", user="", name="chat")
    root = span("s0", kind="agent", name="invoke_agent a", fingerprint="f1", conversation_id="c1", start_ns=150)
    http = span("s9", agent="", user="", name="POST /chat", start_ns=1)
    for spans, expected in (([child], "chat"), ([http], "POST /chat"), ([root], "invoke_agent a")):
        await database.write(SpanBatch(spans))
        [trace] = await listed(database)
        assert trace.name == expected
    assert (trace.user, trace.agent, trace.fingerprint, trace.conversation_id) == ("u-1", "a", "f1", "c1")


async def test_concurrent_batches(database: Database) -> None:
    """Concurrent batches with spans in common are counted as if they came one after the other."""
    import asyncio

    batches = [[span(f"s{n}"), span(f"s{n + 1}")] for n in range(20)]
    results = await asyncio.gather(*(database.write(SpanBatch(batch)) for batch in batches))
    assert sum(new for [new] in results) == 21
    assert [trace.spans for trace in await listed(database)] == [21]


async def test_tenants(database: Database) -> None:
    """A tenant gets its own traces; another's is not found, like one that does not exist."""
    await database.write(SpanBatch([span(), span(trace_id="t2", tenant="other")]))
    assert [trace.trace_id for trace in await listed(database, tenant="acme")] == ["t1"]
    assert len(await listed(database)) == 2
    for trace_id, tenant in (("t1", "other"), ("t2", "acme"), ("t3", None), ("t1", "")):
        with pytest.raises(NotFound, match=f"no trace {trace_id};"):
            await database.read(load_trace(trace_id=trace_id, tenant=tenant))


async def test_a_trace_of_several_tenants(database: Database) -> None:
    """In a trace that several tenants share, each tenant gets and counts its own spans only."""
    shared = [span("s1", cost=NanoUsd(1)), span("s2", tenant="other", cost=NanoUsd(20), start_ns=10)]
    await database.write(SpanBatch(shared))
    for tenant, only in (("acme", shared[0]), ("other", shared[1])):
        summary, loaded_spans = await database.read(load_trace(trace_id="t1", tenant=tenant))
        assert loaded_spans == [only]
        assert (summary.tenant, summary.spans, summary.cost) == (tenant, 1, only.cost)
    summary, loaded_spans = await database.read(load_trace(trace_id="t1", tenant=None))
    assert (summary.spans, summary.cost, len(loaded_spans)) == (2, 21, 2)


async def test_the_list_of_several_tenants(database: Database) -> None:
    """A trace that several tenants share is in each one's list, with its own share of the cost."""
    await database.write(SpanBatch([span("s1", cost=NanoUsd(1)), span("s2", tenant="other", cost=NanoUsd(20))]))
    assert [trace.cost for trace in await listed(database, tenant="other")] == [20]
    assert [trace.cost for trace in await listed(database, tenant="acme")] == [1]


async def test_no_spans(database: Database) -> None:
    """Storing no spans creates no trace."""
    assert await database.write(SpanBatch([])) == [0]
    assert await listed(database) == []
