"""Spans that arrive over OTLP are stored before the response, on every engine."""

import asyncio
from typing import Any

from sqlalchemy import Connection, func, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.operation import Operation
from handrail.traces import semconv
from handrail.traces.analysis.tree import span_tree
from handrail.traces.otlp.ingest import WRITE_BATCH_SPANS, OtlpBatch, decode_request, ingest
from handrail.traces.store.spans import load_payload, load_trace, spans
from tests.traces.otlp_samples import PROTOBUF, protobuf, span

TRACE = "07" * 16


def read(*otlp_spans: Any, tenant: str = "acme") -> OtlpBatch:
    return decode_request(protobuf(*otlp_spans), PROTOBUF, None, tenant, lambda *_: None)


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(spans)).scalar_one()


async def test_a_request_is_stored_whole(database: Database) -> None:
    """A request of several batches is stored whole, and its spans are counted."""
    assert (
        await ingest(database, read(*(span(n) for n in range(1, 2 * WRITE_BATCH_SPANS + 2))))
        == 2 * WRITE_BATCH_SPANS + 1
    )
    assert await database.read(count) == 2 * WRITE_BATCH_SPANS + 1
    assert await ingest(database, OtlpBatch([])) == 0


async def test_a_request_sent_again(database: Database) -> None:
    """A request that is sent again, as after a lost response, changes nothing."""
    sent = read(span(1, {"gen_ai.operation.name": "chat", "input.value": "hi"}), span(2))
    assert await ingest(database, sent) == 2
    before = await database.read(load_trace(trace_id=TRACE, tenant=None))
    assert await ingest(database, read(span(1, {"input.value": "other"}), span(2), span(3))) == 1
    _, [first, *_] = await database.read(load_trace(trace_id=TRACE, tenant=None))
    assert first == before[1][0]


async def test_concurrent_senders(database: Database) -> None:
    """Concurrent requests with spans in common store each span once."""
    requests = [read(*(span(n) for n in range(first, first + 30))) for first in range(1, 121, 15)]
    new = await asyncio.gather(*(ingest(database, row) for row in requests))
    assert sum(new) == await database.read(count) == 135


class CountingDatabase(Database):
    """A store that counts concurrent writes."""

    in_flight = 0
    peak = 0

    async def write(self, *ops: Operation[Any]) -> list[Any]:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await super().write(*ops)
        finally:
            self.in_flight -= 1


async def test_one_batch_at_a_time(address: str) -> None:
    """One batch is written at a time, so that a run's hold waits for one batch only."""
    counting = CountingDatabase.open(address)
    requests = [
        read(*(span(n) for n in range(first, first + WRITE_BATCH_SPANS)))
        for first in range(1, 8 * WRITE_BATCH_SPANS, WRITE_BATCH_SPANS)
    ]
    try:
        await asyncio.gather(*(ingest(counting, row) for row in requests))
    finally:
        counting.close()
    assert isinstance(counting, CountingDatabase)
    assert counting.peak == 1


async def test_late_parents(database: Database) -> None:
    """Children that arrive before their parents are below them once these have arrived."""
    child = span(2, parent_span_id=(1).to_bytes(8))
    await ingest(database, read(span(3, parent_span_id=(2).to_bytes(8)), child))
    _, loaded = await database.read(load_trace(trace_id=TRACE, tenant="acme"))
    [orphan] = span_tree(loaded)
    assert (orphan.span.span_id, orphan.orphan) == (f"{2:016x}", True)
    await ingest(database, read(span(1)))
    _, loaded = await database.read(load_trace(trace_id=TRACE, tenant="acme"))
    [root] = span_tree(loaded)
    assert (root.orphan, root.children[0].children[0].span.span_id) == (False, f"{3:016x}")


async def test_values_that_cannot_be_stored(database: Database) -> None:
    """Null characters, lone surrogates, huge numbers and very long texts are stored as well as possible."""
    odd = {
        "gen_ai.operation.name": "chat",
        "user.id": "u\0",
        "session.id": "s" * 1_000,
        "gen_ai.request.model": "m\0",
        "gen_ai.usage.input_tokens": 2**63 - 1,
        "gen_ai.usage.output_tokens": 10**15,
        "gen_ai.usage.cost": 1e300,
        "retry.attempt": 2**40,
        "error.type": "e\0",
        "tenant.id": "\0",
        "x\0": "y\0",
        "gen_ai.input.messages": "m\0" * 300_000,
    }
    latest = span(2, end_time_unix_nano=2**63 - 1)
    assert await ingest(database, read(span(1, odd, name="n\0"), latest)) == 2
    _, loaded = await database.read(load_trace(trace_id=TRACE, tenant="acme"))
    first = next(row for row in loaded if row.name.startswith("n"))
    assert (first.user, first.model, first.error_type, first.name) == ("u\ufffd", "m\ufffd", "e\ufffd", "n\ufffd")
    assert first.attributes["gen_ai.usage.input_tokens"] == 2**63 - 1
    assert first.attributes["x\0"] == "y\0"
    assert first.attributes[semconv.TENANT] == "\ufffd"
    assert await database.read(load_payload(trace_id=TRACE, span_id=first.span_id)) is not None


async def test_tenants_by_key(database: Database) -> None:
    """A tenant's spans are visible to that tenant only, even if they name another's trace and tenant."""
    await ingest(database, read(span(1), tenant="acme"))
    await ingest(database, read(span(2, {"tenant.id": "acme"}), tenant="other"))
    for tenant, number in (("acme", 1), ("other", 2)):
        _, [loaded] = await database.read(load_trace(trace_id=TRACE, tenant=tenant))
        assert loaded.span_id == f"{number:016x}"
