"""`kill -9` while several senders ingest."""

from pathlib import Path

from sqlalchemy import Connection, select

from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.schema import upgrade
from handrail.traces.store.queries import top_traces
from handrail.traces.store.spans import spans
from tests.crash.processes import running, said

ROUNDS = 3


def test_what_was_acknowledged_is_there(store_url: str) -> None:
    """Killed at full speed, three times over: every span whose request was answered is in the store.

    And each trace's summary counts what is there, no more and no less.
    """
    upgrade(parsed(store_url, Path()))
    acknowledged: set[str] = set()
    for round_ in range(ROUNDS):
        with running("otlp_receiver", store_url, str(round_)) as process:
            acknowledged.update(said(process) for _ in range(300 + 700 * round_))
            process.kill()
            assert process.stdout is not None
            # The line that the kill cut in two was not told.
            acknowledged.update(line.rstrip("\n") for line in process.stdout if line.endswith("\n"))
    database = Database.open(store_url)
    try:
        stored = database.read_now(_by_trace)
        listed = database.read_now(lambda conn: top_traces(conn, tenant=None, limit=1_000_000))
    finally:
        database.close()
    assert acknowledged - {f"{trace} {span}" for trace, ids in stored.items() for span in ids} == set()
    assert len(acknowledged) >= ROUNDS * 300
    assert {trace.trace_id: trace.spans for trace in listed} == {trace: len(ids) for trace, ids in stored.items()}


def _by_trace(conn: Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for trace_id, span_id in conn.execute(select(spans.c.trace_id, spans.c.span_id)):
        found.setdefault(trace_id, set()).add(span_id)
    return found
