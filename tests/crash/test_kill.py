"""What a store contains after `kill -9`."""

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
from handrail.runs.store.queries import RunView, list_runs, load_input, load_outcomes, load_run
from handrail.runs.store.runs import LEASE
from handrail.traces.store.spans import load_trace
from tests.crash.processes import read_line, running


@pytest.fixture
def address(store_url: str) -> str:
    """The address of a store with its tables."""
    upgrade(parsed(store_url, Path()))
    return store_url


@pytest.fixture
def after_kill(request: pytest.FixtureRequest, address: str) -> Iterator[Database]:
    """The store, reopened after the process of a run was killed in the place given by the parameter."""
    with running("blocked_run", address, request.param) as process:
        assert read_line(process) == f"blocks in the {request.param}"
        process.kill()
        process.wait()
    database = Database.open(address)
    yield database
    database.close()


def _only_run(database: Database, later: timedelta = timedelta(0)) -> RunView:
    now = SystemClock().now() + later
    [run] = database.read_now(list_runs(now, tenant="acme", agent=None, limit=10, before=None))
    assert run == database.read_now(load_run(run.run_id, now))
    return run


@pytest.mark.parametrize("after_kill", ["model"], indirect=True)
def test_a_run_killed_in_its_second_request_keeps_its_commits(after_kill: Database) -> None:
    """The run is stored with its input, its usage, and the spans of the first request and of the tool."""
    run = _only_run(after_kill)
    assert after_kill.read_now(load_input(run.run_id)) == "Where is order 1042?"
    assert (run.agent, run.user, run.requests, run.input_tokens, run.output_tokens) == ("support", "u-1", 2, 30, 5)
    summary, spans = after_kill.read_now(load_trace(run.trace_id, "acme"))
    assert [(span.kind, span.name.split()[0]) for span in spans] == [("model", "chat"), ("tool", "execute_tool")]
    assert (summary.spans, summary.input_tokens) == (2, 30)
    assert after_kill.read_now(load_outcomes(run.run_id)) == []


@pytest.mark.parametrize("after_kill", ["tool"], indirect=True)
def test_a_run_killed_in_its_first_tool_is_stored_with_its_input(after_kill: Database) -> None:
    """The run was committed before its first request, so it is stored, although none of its spans is."""
    run = _only_run(after_kill)
    assert after_kill.read_now(load_input(run.run_id)) == "Where is order 1042?"
    assert run.requests == 1
    with pytest.raises(NotFound):
        after_kill.read_now(load_trace(run.trace_id, "acme"))


@pytest.mark.parametrize("after_kill", ["tool"], indirect=True)
def test_a_killed_run_shows_as_interrupted_once_its_lease_is_over(after_kill: Database) -> None:
    """A killed run counts as running until its lease ends, then as interrupted, on the failed path."""
    run = _only_run(after_kill)
    assert (run.status, run.path, run.fault) == ("running", None, None)
    late = _only_run(after_kill, later=LEASE)
    assert (late.status, late.path, late.fault) == ("interrupted", "failed", "interrupted")
    assert late.duration is None


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    """A process is killed three times at full write rate, and every key that it acknowledged is stored."""
    store = str(tmp_path / "handrail.db")
    acknowledged: set[str] = set()
    for round_ in range(3):
        with running("flat_out", store, str(round_)) as process:
            acknowledged.update(read_line(process) for _ in range(100 + 250 * round_))
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
