"""Killed at any commit of the thread through all five lessons and started again, on SQLite and on Postgres."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from tests.crash.processes import said, tell

PROGRAM = Path(__file__).parent / "programs" / "end_to_end.py"
SHARES = 4
"""The kills are dealt to this many tests, which run side by side."""
THOROUGH = bool(os.environ.get("HANDRAIL_SOAK"))
"""`make soak`: on Postgres, too, a kill at every commit, where `make test` takes every second one."""


def crashes(first: int, step: int, store: Callable[[], str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each kill, and what was found after it; the last is that of a kill that never came."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(PROGRAM), str(first), str(step)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        for kill in count(first, step):
            tell(process, store())
            line = said(process)
            assert line, f"kill {kill}: the program ended"
            found = json.loads(line)
            yield kill, found
            if not found["killed"]:
                break


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes empty stores, one after another."""
    with ExitStack() as opened:
        if request.param == "sqlite":
            Database.open("empty.db", tmp_path).close()

            def make() -> str:
                made = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
                shutil.copy(tmp_path / "empty.db", made)
                return f"sqlite:///{made}"
        else:
            server = request.getfixturevalue("postgres")
            url = opened.enter_context(server.database())
            upgrade(store_url(url, Path()))
            engine = create_engine(url)
            opened.callback(engine.dispose)
            tables = ", ".join(set(inspect(engine).get_table_names()) - {"alembic_version"})

            def make() -> str:
                # A database of its own for each kill would cost seconds.
                with engine.begin() as conn:
                    conn.execute(text(f"TRUNCATE {tables}"))
                return str(url)

        yield make


def killed(first: int, step: int, store: Callable[[], str]) -> int:
    """The number of the first kill that never came; raises AssertionError where a promise was broken before."""
    for kill, found in crashes(first, step, store):
        assert not wrong_with(found), f"kill {kill}: {wrong_with(found)} in {json.dumps(found, indent=1)}"
    return kill


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_killed_at_every_commit(stores: Callable[[], str], share: int) -> None:
    """Nothing told is lost, no money is unaccounted for, no refund is paid twice, and the thread goes on to its end."""
    assert killed(share, SHARES, stores) > 120


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
def test_killed_before_commits_of_postgres(stores: Callable[[], str], share: int) -> None:
    """The same on Postgres; what a kill right after a commit leaves there is what one before the next finds."""
    apart = 2 if THOROUGH else 4
    assert killed(apart * share, apart * SHARES, stores) > 120


def wrong_with(found: dict[str, Any]) -> list[str]:
    """What of the promises was broken, in words; empty where all of them were kept."""
    told = {what: [each[1] for each in found["told"] if each[0] == what] for what, _ in found["told"]}
    runs, paid = found["runs"], found["refunds"]
    kept = {
        "an outcome that was told is gone": all(
            what in runs[which] for what in ("awaiting_approval", "answered") for which in told.get(what, ())
        ),
        "a decision that was told is gone": all(
            found["approvals"][each] not in ("pending", "denied") for each in told.get("approved", ())
        ),
        "a verdict that was told is gone": set(told.get("marked", ())) <= set(found["marked"]),
        "the set did not get its case": found["cases"] == 3,
        "the gate did not come to its end": sorted(found["gates"])[-1] is True and False in found["gates"],
        "a refund was paid twice": len(paid) == len(set(paid)),
        "a refund was paid that nobody approved": all(
            found["approvals"][each] in ("executed", "unknown_after_crash", "failed") for each in paid
        ),
        "an executed refund was not paid": all(
            each in paid for each, state in found["approvals"].items() if state == "executed"
        ),
        "a refund that may have been paid was not handed to a person": all(
            "escalated" in runs[run] for run, state in found["states"].items() if "unknown" in state
        ),
        "a run was left in the air": set(found["states"].values()) <= {"answered", "escalated", "interrupted"},
        "a hold is still open": set(found["holds"]) <= {"settled", "charged"},
        "money is unaccounted for": found["booked"] >= found["used"],
        "the books do not agree": found["books"] == [],
    }
    return [what for what, true in kept.items() if not true]
