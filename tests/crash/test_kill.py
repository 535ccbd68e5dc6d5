"""What is there after `kill -9`."""

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.jobs import jobs
from handrail.kernel.db.schema import upgrade
from handrail.kernel.errors import NotFound
from handrail.runs.store.runs import LEASE, RunView, list_runs, load_input, load_outcomes, load_run
from handrail.traces.store.spans import load_trace
from tests.crash.processes import running, said


@pytest.fixture
def address(store_url: str) -> str:
    """The address of a store whose tables are there."""
    upgrade(parsed(store_url, Path()))
    return store_url


@pytest.fixture
def after_kill(request: pytest.FixtureRequest, address: str) -> Iterator[Database]:
    """The store, opened anew after a run in it was killed in the place that the test names."""
    with running("blocked_run", address, request.param) as process:
        assert said(process) == f"hangs in the {request.param}"
        process.kill()
        process.wait()
    database = Database.open(address)
    yield database
    database.close()


def _only_run(database: Database, later: timedelta = timedelta(0)) -> RunView:
    now = SystemClock().now() + later
    [run] = database.read_now(lambda conn: list_runs(conn, now, tenant="acme", agent=None, limit=10, before=None))
    assert run == database.read_now(lambda conn: load_run(conn, run.run_id, now))
    return run


@pytest.mark.parametrize("after_kill", ["model"], indirect=True)
def test_a_run_killed_in_its_second_request_keeps_what_was_committed(after_kill: Database) -> None:
    """The run is there with its input, its usage, and the spans of the first request and of the tool."""
    run = _only_run(after_kill)
    assert after_kill.read_now(lambda conn: load_input(conn, run.run_id)) == "Where is order 1042?"
    assert (run.agent, run.user, run.requests, run.input_tokens, run.output_tokens) == ("support", "u-1", 2, 30, 5)
    summary, spans = after_kill.read_now(lambda conn: load_trace(conn, run.trace_id, "acme"))
    assert [(span.kind, span.name.split()[0]) for span in spans] == [("model", "chat"), ("tool", "execute_tool")]
    assert (summary.spans, summary.input_tokens) == (2, 30)
    assert after_kill.read_now(lambda conn: load_outcomes(conn, run.run_id)) == []


@pytest.mark.parametrize("after_kill", ["tool"], indirect=True)
def test_a_run_killed_in_its_first_tool_is_there_with_its_input(after_kill: Database) -> None:
    """The run was committed before its first request, so it is there, although none of its spans is."""
    run = _only_run(after_kill)
    assert after_kill.read_now(lambda conn: load_input(conn, run.run_id)) == "Where is order 1042?"
    assert run.requests == 1
    with pytest.raises(NotFound):
        after_kill.read_now(lambda conn: load_trace(conn, run.trace_id, "acme"))


@pytest.mark.parametrize("after_kill", ["tool"], indirect=True)
def test_a_killed_run_shows_as_interrupted_once_its_lease_is_over(after_kill: Database) -> None:
    """Until nobody can be running it any more it counts as running, then as interrupted, on the failed path."""
    run = _only_run(after_kill)
    assert (run.status, run.path, run.fault) == ("running", None, None)
    late = _only_run(after_kill, later=LEASE)
    assert (late.status, late.path, late.fault) == ("interrupted", "failed", "interrupted")
    assert late.took is None


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """A process that writes flat out is killed, three times over: every key it had acknowledged is there."""
    store = str(tmp_path / "handrail.db")
    acknowledged: set[str] = set()
    for round_ in range(3):
        with running("flat_out", store, str(round_)) as process:
            acknowledged.update(said(process) for _ in range(100 + 250 * round_))
            process.kill()
            assert process.stdout is not None
            acknowledged.update(line.rstrip("\n") for line in process.stdout)
    database = Database.open(store)
    try:
        assert acknowledged - set(database.read_now(_keys)) == set()
    finally:
        database.close()
    assert len(acknowledged) >= 3 * 100
    with sqlite3.connect(store) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()


def _keys(conn: Connection) -> list[str]:
    return list(conn.execute(select(jobs.c.key)).scalars())
