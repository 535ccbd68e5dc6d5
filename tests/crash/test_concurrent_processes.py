"""Several processes on one SQLite file."""

from contextlib import ExitStack
from pathlib import Path

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.runs.store.runs import list_runs
from tests.crash.processes import running, said, tell

RUNS = 40


def test_two_processes_run_side_by_side_and_lose_nothing(tmp_path: Path) -> None:
    """Two processes, each with many runs at once in one new file, finish them all; every run is stored, answered."""
    store = tmp_path / "handrail.db"
    with ExitStack() as stack:
        both = [stack.enter_context(running("many_runs", str(store), str(RUNS))) for _ in range(2)]
        assert [said(process) for process in both] == ["ready", "ready"]
        for process in both:
            tell(process, "go")
        finished = {said(process) for process in both for _ in range(RUNS)}
        assert [process.wait(60) for process in both] == [0, 0]
    database = Database.open(str(store))
    try:
        now = SystemClock().now()
        stored = database.read_now(lambda conn: list_runs(conn, now, tenant=None, agent=None, limit=1_000, before=None))
    finally:
        database.close()
    assert {run.run_id for run in stored} == finished
    assert len(finished) == 2 * RUNS
    assert {run.status for run in stored} == {"answered"}


def test_two_processes_may_make_the_same_store(tmp_path: Path) -> None:
    """Two processes that open a store which is not there yet at the same moment both find it made, eight times over."""
    with ExitStack() as stack:
        both = [stack.enter_context(running("open_stores")) for _ in range(2)]
        assert [said(process) for process in both] == ["ready", "ready"]
        for number in range(8):
            for process in both:
                tell(process, str(tmp_path / f"{number}.db"))
            assert [said(process) for process in both] == ["open", "open"]
