"""An approved action happens at most once: whoever races for it, and wherever its process is killed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.group_writer import Op
from handrail.kernel.db.schema import upgrade
from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.model import EXECUTING, EXPIRES, AlreadyExecuted, Begun, Execute, Unknown
from handrail.review.approvals.store import begin, load_approval, propose, recover
from tests.crash.processes import running, said, tell
from tests.review.samples import DIGEST, approval

PROCESSES = 3
APPROVALS = 8


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    upgrade(parsed(store_url, Path()))
    opened = Database.open(store_url)
    yield opened
    opened.close()


def _propose(database: Database, *ids: str, idempotent: bool) -> None:
    now = SystemClock().now()
    made = [approval(id_, idempotent=idempotent, proposed_at=now, expires_at=now + EXPIRES) for id_ in ids]
    database.write_now(propose(made))


def _write(database: Database, op: Op) -> object:
    [result] = database.write_now(op)
    return result


def _state(database: Database, approval_id: str) -> str:
    return database.read_now(lambda conn: load_approval(conn, approval_id)).state


def _effects(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_processes_that_race_decide_once_and_execute_once(database: Database, store_url: str, tmp_path: Path) -> None:
    """Several processes approve and execute the same actions at the same moment: each has one who decided, one who
    executed, and one effect."""
    ids = [f"apr_{n}" for n in range(APPROVALS)]
    _propose(database, *ids, idempotent=True)
    with ExitStack() as stack:
        racing = [
            stack.enter_context(running("approver", store_url, str(tmp_path / "effects"), "nowhere"))
            for _ in range(PROCESSES)
        ]
        assert {said(process) for process in racing} == {"ready"}
        for id_ in ids:
            for process in racing:
                tell(process, id_)
            told = [said(process).split() for process in racing]
            assert [Counter(column)["True"] for column in zip(*told, strict=True)] == [1, 1]
            assert _state(database, id_) == "executed"
    assert _effects(tmp_path / "effects") == ids


@pytest.mark.parametrize(
    ("place", "effects", "state", "begun"),
    [
        ("begun", 0, "unknown_after_crash", Unknown()),
        ("effected", 1, "unknown_after_crash", Unknown()),
        ("completed", 1, "executed", AlreadyExecuted({"paid": True})),
    ],
)
def test_a_killed_execution_is_never_repeated(
    database: Database, store_url: str, tmp_path: Path, place: str, effects: int, state: str, begun: Begun
) -> None:
    """Killed before its effect or after it, an action of a tool that is not idempotent is unknown and is not executed
    again; killed after the record of it, it is executed."""
    _propose(database, "apr_1", idempotent=False)
    _kill_at(place, store_url, tmp_path)
    if place != "completed":
        with pytest.raises(StillExecuting):
            database.write_now(begin("apr_1", DIGEST, SystemClock().now()))
    _write(database, recover("run_1", SystemClock().now()))
    assert _state(database, "apr_1") == state
    assert _write(database, begin("apr_1", DIGEST, SystemClock().now() + 2 * EXECUTING)) == begun
    assert _effects(tmp_path / "effects") == ["apr_1"] * effects


def test_a_killed_execution_of_an_idempotent_tool_begins_again(
    database: Database, store_url: str, tmp_path: Path
) -> None:
    """After a kill, the next process may execute with the same key, the approval's id, once it has taken over."""
    _propose(database, "apr_1", idempotent=True)
    _kill_at("effected", store_url, tmp_path)
    _write(database, recover("run_1", SystemClock().now()))
    assert _write(database, begin("apr_1", DIGEST, SystemClock().now())) == Execute()


def _kill_at(place: str, store: str, folder: Path) -> None:
    """Runs the action `apr_1` in a process of its own until it is at `place`, and kills it there."""
    with running("approver", store, str(folder / "effects"), place) as process:
        assert said(process) == "ready"
        tell(process, "apr_1")
        assert said(process) == place
        process.kill()
        process.wait()
