"""The end-to-end scenario is killed at any of its commits and restarted, on SQLite and on Postgres."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.crash.processes import read_line, running, write_line

SHARES = 4
"""The kills are divided among this many tests, which run in parallel."""


def crashes(first: int, step: int, store: Callable[[], str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each kill and the report after it, up to the first kill that was not reached."""
    with running("end_to_end", str(first), str(step)) as process:
        for kill in count(first, step):
            write_line(process, store())
            line = read_line(process)
            assert line, f"kill {kill}: the program ended"
            report = json.loads(line)
            yield kill, report
            if not report["killed"]:
                break


def kill_at_commits(first: int, step: int, store: Callable[[], str]) -> int:
    """Fails if a guarantee was broken after a kill; returns the number of the first kill that was not reached."""
    for kill, report in crashes(first, step, store):
        violations = broken_guarantees(report)
        assert not violations, f"kill {kill}: {violations} in {json.dumps(report, indent=1)}"
    return kill


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_killed_at_some_commits(stores: Callable[[], str]) -> None:
    """Nothing acknowledged is lost, no money is unaccounted for, no refund is paid twice, and every run ends."""
    assert kill_at_commits(3, 24, stores) > 120


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize(("stores", "step"), [("sqlite", 1), ("postgres", 2)], indirect=["stores"])
def test_killed_at_every_commit(stores: Callable[[], str], step: int, share: int) -> None:
    """The same for every commit. On Postgres a kill after one commit is the same as one before the next."""
    assert kill_at_commits(step * share, step * SHARES, stores) > 120


def broken_guarantees(report: dict[str, Any]) -> list[str]:
    """Describes the guarantees that were broken; empty if all hold."""
    acknowledged: dict[str, list[str]] = {}
    for event, event_id in report["acknowledged"]:
        acknowledged.setdefault(event, []).append(event_id)
    runs, paid, approvals = report["runs"], report["refunds"], report["approvals"]
    guarantees = {
        "an acknowledged outcome is lost": all(
            outcome in runs[run]
            for outcome in ("awaiting_approval", "answered")
            for run in acknowledged.get(outcome, ())
        ),
        "an acknowledged decision is lost": all(
            approvals[approval_id] not in ("pending", "denied") for approval_id in acknowledged.get("approved", ())
        ),
        "acknowledged feedback is lost": set(acknowledged.get("feedback", ())) <= set(report["feedback"]),
        "the eval set lacks its new case": report["cases"] == 3,
        "the gates did not both finish": sorted(report["gates"])[-1] is True and False in report["gates"],
        "a refund was paid twice": len(paid) == len(set(paid)),
        "a refund was paid without approval": all(
            approvals[approval_id] in ("executed", "unknown_after_crash", "failed") for approval_id in paid
        ),
        "an executed refund was not paid": all(
            approval_id in paid for approval_id, state in approvals.items() if state == "executed"
        ),
        "a refund that may have been paid was not handed to a person": all(
            "escalated" in runs[run] for run, state in report["states"].items() if "unknown" in state
        ),
        "a run did not end": set(report["states"].values()) <= {"answered", "escalated", "interrupted"},
        "a hold is still open": set(report["holds"]) <= {"settled", "charged"},
        "money is unaccounted for": report["booked"] >= report["used"],
        "the ledger is inconsistent": report["discrepancies"] == [],
    }
    return [violation for violation, holds in guarantees.items() if not holds]
