"""`kill -9` while several senders send spans."""

from pathlib import Path

from sqlalchemy import Connection, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.schema import upgrade
from handrail.traces.store.spans import spans
from handrail.traces.store.trace_queries import top_traces
from tests.crash.processes import read_line, running

ROUNDS = 3


def test_acknowledged_spans_survive_a_kill(store_url: str) -> None:
    """After three kills at full rate, every acknowledged span is stored, and each trace's summary counts its spans."""
    upgrade(parsed(store_url, Path()))
    acknowledged: set[str] = set()
    for round_ in range(ROUNDS):
        with running("otlp_receiver", store_url, str(round_)) as process:
            acknowledged.update(read_line(process) for _ in range(300 + 700 * round_))
            process.kill()
            assert process.stdout is not None
            # A line that the kill truncated does not count as acknowledged.
            acknowledged.update(line.rstrip("\n") for line in process.stdout if line.endswith("\n"))
    database = Database.open(store_url)
    try:
        stored = database.read_now(_by_trace)
        listed = database.read_now(top_traces(tenant=None, limit=1_000_000))
    finally:
        database.close()
    assert acknowledged - {f"{trace} {span}" for trace, ids in stored.items() for span in ids} == set()
    assert len(acknowledged) >= ROUNDS * 300
    assert {trace.trace_id: trace.spans for trace in listed} == {trace: len(ids) for trace, ids in stored.items()}


def _by_trace(conn: Connection) -> dict[str, set[str]]:
    span_ids: dict[str, set[str]] = {}
    for trace_id, span_id in conn.execute(select(spans.c.trace_id, spans.c.span_id)):
        span_ids.setdefault(trace_id, set()).add(span_id)
    return span_ids
