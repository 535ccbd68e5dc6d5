"""What OTLP brings is in the store when its request is answered, whatever the store."""

import asyncio
from functools import partial
from typing import Any

from sqlalchemy import Connection, func, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import Op
from handrail.traces import semconv
from handrail.traces.analysis.tree import span_tree
from handrail.traces.otlp.ingest import BATCH, Received, ingest, read_otlp
from handrail.traces.store.spans import load_payload, load_trace, spans
from tests.traces.otlp_samples import PROTOBUF, protobuf, span

TRACE = "07" * 16


def read(*sent: Any, tenant: str = "acme") -> Received:
    return read_otlp(protobuf(*sent), PROTOBUF, None, tenant, lambda *_: None)


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(spans)).scalar_one()


async def test_all_of_a_request_is_there(database: Database) -> None:
    """A request of several batches is stored whole, and its spans are counted."""
    assert await ingest(database, read(*(span(n) for n in range(1, 2 * BATCH + 2)))) == 2 * BATCH + 1
    assert await database.read(count) == 2 * BATCH + 1
    assert await ingest(database, Received([])) == 0


async def test_a_request_sent_again(database: Database) -> None:
    """A request that is sent again, as senders do that had no answer, changes nothing."""
    sent = read(span(1, {"gen_ai.operation.name": "chat", "input.value": "hi"}), span(2))
    assert await ingest(database, sent) == 2
    before = await database.read(partial(load_trace, trace_id=TRACE, tenant=None))
    assert await ingest(database, read(span(1, {"input.value": "other"}), span(2), span(3))) == 1
    _, [first, *_] = await database.read(partial(load_trace, trace_id=TRACE, tenant=None))
    assert first == before[1][0]


async def test_senders_at_once(database: Database) -> None:
    """Requests that arrive together, with spans in common, store each span once."""
    requests = [read(*(span(n) for n in range(first, first + 30))) for first in range(1, 121, 15)]
    new = await asyncio.gather(*(ingest(database, each) for each in requests))
    assert sum(new) == await database.read(count) == 135


class Watched(Database):
    """A store that knows how many writes were under way at once."""

    under_way = 0
    most = 0

    async def write(self, *ops: Op) -> list[Any]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await super().write(*ops)
        finally:
            self.under_way -= 1


async def test_one_batch_at_a_time(address: str) -> None:
    """However many send, one batch is being written, so that a run's hold waits behind no more than that."""
    watched = Watched.open(address)
    requests = [read(*(span(n) for n in range(first, first + BATCH))) for first in range(1, 8 * BATCH, BATCH)]
    try:
        await asyncio.gather(*(ingest(watched, each) for each in requests))
    finally:
        watched.close()
    assert isinstance(watched, Watched)
    assert watched.most == 1


async def test_late_parents(database: Database) -> None:
    """Children that arrive before their parents hang below them once these have come."""
    below = span(2, parent_span_id=(1).to_bytes(8))
    await ingest(database, read(span(3, parent_span_id=(2).to_bytes(8)), below))
    _, found = await database.read(partial(load_trace, trace_id=TRACE, tenant="acme"))
    [orphan] = span_tree(found)
    assert (orphan.span.span_id, orphan.orphan) == (f"{2:016x}", True)
    await ingest(database, read(span(1)))
    _, found = await database.read(partial(load_trace, trace_id=TRACE, tenant="acme"))
    [root] = span_tree(found)
    assert (root.orphan, root.children[0].children[0].span.span_id) == (False, f"{3:016x}")


async def test_what_a_store_does_not_take(database: Database) -> None:
    """Null characters, halves of pairs, the longest numbers and endless texts are stored, or what can be of them."""
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
    _, found = await database.read(partial(load_trace, trace_id=TRACE, tenant="acme"))
    first = next(each for each in found if each.name.startswith("n"))
    assert (first.user, first.model, first.error_type, first.name) == ("u\ufffd", "m\ufffd", "e\ufffd", "n\ufffd")
    assert first.attributes["gen_ai.usage.input_tokens"] == 2**63 - 1
    assert first.attributes["x\0"] == "y\0"
    assert first.attributes[semconv.TENANT] == "\ufffd"
    assert await database.read(partial(load_payload, trace_id=TRACE, span_id=first.span_id)) is not None


async def test_tenants_by_key(database: Database) -> None:
    """One tenant's spans are nobody else's to see, also where they name the other's trace and tenant."""
    await ingest(database, read(span(1), tenant="acme"))
    await ingest(database, read(span(2, {"tenant.id": "acme"}), tenant="other"))
    for tenant, number in (("acme", 1), ("other", 2)):
        _, [found] = await database.read(partial(load_trace, trace_id=TRACE, tenant=tenant))
        assert found.span_id == f"{number:016x}"
