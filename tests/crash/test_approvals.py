"""An approved action is executed at most once, with racing processes and with a kill at any point."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.operation import Operation
from handrail.kernel.db.schema import upgrade
from handrail.review.approvals.errors import StillExecuting
from handrail.review.approvals.model import (
    DECISION_PERIOD,
    EXECUTION_LEASE,
    AlreadyExecuted,
    BeginResult,
    Execute,
    UnknownEffect,
)
from handrail.review.approvals.queries import load_approval
from handrail.review.approvals.store import begin, propose, recover
from tests.crash.processes import read_line, running, write_line
from tests.review.samples import DIGEST, approval

PROCESSES = 3
APPROVALS = 8
GONE = UnknownEffect("its process died while it was being executed")


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    upgrade(parsed(store_url, Path()))
    opened = Database.open(store_url)
    yield opened
    opened.close()


def _propose(database: Database, *ids: str, idempotent: bool) -> None:
    now = SystemClock().now()
    proposals = [approval(id_, idempotent=idempotent, proposed_at=now, expires_at=now + DECISION_PERIOD) for id_ in ids]
    database.write_now(propose(proposals))


def _write(database: Database, op: Operation[Any]) -> object:
    [result] = database.write_now(op)
    return result


def _state(database: Database, approval_id: str) -> str:
    return database.read_now(load_approval(approval_id, SystemClock().now())).state


def _effects(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_racing_processes_decide_once_and_execute_once(database: Database, store_url: str, tmp_path: Path) -> None:
    """Of several processes that approve and execute the same actions, one decides and one executes each, once."""
    ids = [f"apr_{n}" for n in range(APPROVALS)]
    _propose(database, *ids, idempotent=True)
    with ExitStack() as stack:
        racing = [
            stack.enter_context(running("approver", store_url, str(tmp_path / "effects"), "nowhere"))
            for _ in range(PROCESSES)
        ]
        assert {read_line(process) for process in racing} == {"ready"}
        for id_ in ids:
            for process in racing:
                write_line(process, id_)
            answers = [read_line(process).split() for process in racing]
            assert [Counter(column)["True"] for column in zip(*answers, strict=True)] == [1, 1]
            assert _state(database, id_) == "executed"
    assert _effects(tmp_path / "effects") == ids


@pytest.mark.parametrize(
    ("place", "effects", "state", "begun"),
    [
        ("begun", 0, "unknown_after_crash", GONE),
        ("effected", 1, "unknown_after_crash", GONE),
        ("completed", 1, "executed", AlreadyExecuted({"paid": True})),
    ],
)
def test_a_killed_execution_is_never_repeated(
    database: Database, store_url: str, tmp_path: Path, place: str, effects: int, state: str, begun: BeginResult
) -> None:
    """A kill before or after the effect of a tool that is not idempotent leaves the action unknown and not executed
    again; a kill after the effect was recorded leaves it executed."""
    _propose(database, "apr_1", idempotent=False)
    _kill_at(place, store_url, tmp_path)
    if place != "completed":
        with pytest.raises(StillExecuting):
            database.write_now(begin("apr_1", DIGEST, SystemClock().now()))
    _write(database, recover("run_1", SystemClock().now()))
    assert _state(database, "apr_1") == state
    assert _write(database, begin("apr_1", DIGEST, SystemClock().now() + 2 * EXECUTION_LEASE)) == begun
    assert _effects(tmp_path / "effects") == ["apr_1"] * effects


def test_a_killed_execution_of_an_idempotent_tool_begins_again(
    database: Database, store_url: str, tmp_path: Path
) -> None:
    """After a kill, the process that takes over executes an idempotent tool again, under the same approval id."""
    _propose(database, "apr_1", idempotent=True)
    _kill_at("effected", store_url, tmp_path)
    _write(database, recover("run_1", SystemClock().now()))
    assert _write(database, begin("apr_1", DIGEST, SystemClock().now())) == Execute()


def _kill_at(place: str, store: str, folder: Path) -> None:
    """Executes the action `apr_1` in a separate process and kills it at `place`."""
    with running("approver", store, str(folder / "effects"), place) as process:
        assert read_line(process) == "ready"
        write_line(process, "apr_1")
        assert read_line(process) == place
        process.kill()
        process.wait()
