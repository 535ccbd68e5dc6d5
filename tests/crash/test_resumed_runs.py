"""A resumed run is killed, cancelled, timed out and stopped at each of its awaits; then a worker and a person go on."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from tests.crash.conftest import Stores
from tests.crash.processes import read_line, running, write_line

INJURIES = ("kill", "cancel", "timeout", "exit", "stop")
SWEEPS = [("sqlite", "worker", 0), ("sqlite", "resume", 1), ("postgres", "worker", 1)]
"""The store, what resumes the run, and the first point; in steps of two, since an await has two points. The worker's
awaits are those of a resumed run and some more."""
ACTIONS = {"charge", "send", "close"}
UNCERTAIN = {"unknown_after_crash", "failed"}
LEAST_POINTS = 120
"""The run has more points than this; fewer would mean that it was not injured where it matters."""
CONVERSATION = [
    *("user-prompt", "text"),
    *("user-prompt", "tool-call charge", "tool-call send", "tool-call close"),
    *("tool-return charge", "tool-return send", "tool-return close"),
    *("tool-call look_up", "tool-return look_up", "text"),
]
"""The parts of the messages of the two runs of the conversation."""


def injuries(path: str, injury: str, points: Sequence[int], stores: Stores) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields each point and the report after the injury there, up to the first point that was not reached.

    Args:
        path: What resumes the run: `worker` or `resume`.
        injury: What happens.
        points: The first point, the step from one to the next and, for a second kill, its point.
        stores: The stores to use.
    """
    with running("resumed_run", path, injury, *map(str, points)) as program:
        write_line(program, stores())
        assert read_line(program) == "prepared"
        stores.keep()
        for point in count(points[0], points[1]):
            write_line(program, stores.again())
            line = read_line(program)
            assert line, f"point {point}: the program ended"
            report = json.loads(line)
            yield point, report
            if not report.get("injured"):
                break


def injure_at(path: str, injury: str, points: Sequence[int], stores: Stores) -> int:
    """Fails if a guarantee was broken after an injury; returns the first point that was not reached."""
    for point, report in injuries(path, injury, points, stores):
        violations = broken_guarantees(report)
        assert not violations, f"{path}, {injury} at point {point}: {violations} in {json.dumps(report, indent=1)}"
    return point


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("path", "first", "injury"), [("worker", 3, "kill"), ("resume", 4, "cancel")])
def test_injured_at_some_awaits(stores: Stores, path: str, first: int, injury: str) -> None:
    """No action is executed twice or dropped, no money is unaccounted for, and the run goes on to its answer."""
    assert injure_at(path, injury, (first, 14), stores) > LEAST_POINTS


@pytest.mark.slow
@pytest.mark.parametrize("injury", INJURIES)
@pytest.mark.parametrize(("stores", "path", "first"), SWEEPS, indirect=["stores"])
def test_injured_at_every_await(stores: Stores, path: str, first: int, injury: str) -> None:
    """The same for every await, whatever happens there, on both stores."""
    assert injure_at(path, injury, (first, 2), stores) > LEAST_POINTS


@pytest.mark.slow
@pytest.mark.parametrize("second", [30, 80, 120])
@pytest.mark.parametrize("stores", ["sqlite", "postgres"], indirect=True)
def test_killed_twice(stores: Stores, second: int) -> None:
    """The same if the worker that goes on is killed too."""
    assert injure_at("resume", "kill", (second % 12, 12, second), stores) > LEAST_POINTS


def broken_guarantees(report: dict[str, Any]) -> list[str]:
    """Describes the guarantees that were broken; empty if all hold."""
    if "status" in report:
        return ["somebody waits for ever" if report["hung"] else f"the recovery ended with {report['status']}"]
    at_once, recovered, settled, end = (report[part] for part in ("at_once", "recovered", "settled", "end"))
    moments = (at_once, recovered, settled)
    # Actions that were not begun wait until the uncertain ones of the same run are settled.
    uncertain = UNCERTAIN & set(recovered["approvals"].values())
    keys = {attempt for attempt in settled["attempts"] if attempt.startswith("charge")}
    guarantees = {
        "an action was executed twice": all(
            max(Counter(moment["effects"]).values(), default=1) == 1 for moment in moments
        ),
        "an action was tried again under another key": len(keys) <= 1,
        "an action that may not be repeated was repeated": all(
            settled["attempts"].count(action) <= 1 for action in ("send", "close")
        ),
        "an approved action was dropped": all(
            state in {"executed", *uncertain, "approved" if uncertain else None}
            for state in recovered["approvals"].values()
        ),
        "an action is called executed, but was not": all(
            action in moment["effects"]
            for moment in moments
            for action, state in moment["approvals"].items()
            if state == "executed"
        ),
        "an action was executed that nobody knows of": all(
            recovered["approvals"][action] in {"executed", *UNCERTAIN} for action in recovered["effects"]
        ),
        "a person was asked about an action that is idempotent": "charge" not in dict(report["settlements"]),
        "a run with uncertain actions is not shown to a person": recovered["status"]
        == ("escalated" if uncertain else "answered"),
        "a claim is left behind by a process that could give it back": not report["soft"]
        or (at_once["status"] != "running" and not at_once["claimed_jobs"]),
        # A timeout may expire while the task goes on with its last step, and has ended by then.
        "a cancellation was ignored": not (report["soft"] and report["injured"])
        or report["ended"] != "returned"
        or (report["injury"] == "timeout" and at_once["status"] == "answered"),
        "an outcome of the run is a failure": not {"failed", "fell_back", "refused"} & set(settled["outcomes"]),
        "the run did not go on to its answer": settled["status"] == "answered",
        "an action did not happen in the end": set(settled["effects"]) == ACTIONS
        and set(settled["approvals"].values()) == {"executed"},
        "a hold is still open": set(end["holds"]) <= {"settled", "charged"},
        "money is unaccounted for": end["booked"] >= end["used"],
        "the ledger is inconsistent": end["discrepancies"] == [],
        "a job is left behind": end["jobs"] == [["done", None]],
        "the conversation is damaged": end["conversation"] == CONVERSATION,
    }
    return [violation for violation, holds in guarantees.items() if not holds]
