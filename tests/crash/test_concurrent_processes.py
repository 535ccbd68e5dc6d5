"""Several processes on one SQLite file."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.runs.store.queries import list_runs
from tests.crash.processes import read_line, running, write_line

RUNS = 40


@pytest.mark.slow
def test_runs_of_two_processes_are_all_stored(tmp_path: Path) -> None:
    """Two processes with many concurrent runs in one new file finish all of them, and all are stored as answered."""
    store = tmp_path / "handrail.db"
    with ExitStack() as stack:
        processes = [stack.enter_context(running("many_runs", str(store), str(RUNS))) for _ in range(2)]
        assert [read_line(process) for process in processes] == ["ready", "ready"]
        for process in processes:
            write_line(process, "go")
        finished = {read_line(process) for process in processes for _ in range(RUNS)}
        assert [process.wait(60) for process in processes] == [0, 0]
    database = Database.open(str(store))
    try:
        now = SystemClock().now()
        stored = database.read_now(list_runs(now, tenant=None, agent=None, limit=1_000, before=None))
    finally:
        database.close()
    assert {run.run_id for run in stored} == finished
    assert len(finished) == 2 * RUNS
    assert {run.status for run in stored} == {"answered"}


def test_two_processes_may_create_the_same_store(tmp_path: Path) -> None:
    """Two processes that open the same new store at the same time both succeed, eight times in a row."""
    with ExitStack() as stack:
        processes = [stack.enter_context(running("open_stores")) for _ in range(2)]
        assert [read_line(process) for process in processes] == ["ready", "ready"]
        for number in range(8):
            for process in processes:
                write_line(process, str(tmp_path / f"{number}.db"))
            assert [read_line(process) for process in processes] == ["open", "open"]
