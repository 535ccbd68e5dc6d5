"""Injures a resumed run at a point, and lets a worker and a person go on from there, once for each point.

resumed_run.py PATH INJURY FIRST STEP [SECOND], then store addresses on standard input, one per line. The first is of
an empty store, where the run is brought to its approvals; then the program prints `prepared`. Each further one is of a
copy of that store, for one injury: at point FIRST, then at every STEP-th. PATH is `worker` or `resume`, the code that
resumes the run. With SECOND, the worker that goes on is killed too, at that point. Prints a line of JSON for each
injury, and stops once the run ends before the point; that line has `injured` false.
"""

import asyncio
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stdout
from datetime import timedelta
from io import StringIO
from typing import Any

from sqlalchemy import Connection, select

from handrail import Runtime, use_runtime
from handrail.ceilings.ledger_queries import find_discrepancies
from handrail.ceilings.tables import holds
from handrail.kernel.db.jobs import jobs
from handrail.review.approvals.store import approvals, decide, settle_uncertain
from handrail.runs.store.queries import load_conversation, load_outcomes, load_run
from handrail.testing import VirtualClock
from handrail.worker import run_due_jobs
from tests.crash.awaits import InjuredRunner, Injury, Stopped
from tests.crash.desk import CONVERSATION, COST, GREETING, REQUEST, Desk, settings

SOFT = ("cancel", "timeout")
"""The injuries after which the process can still write."""
ROLES = {"lead": ("mia",)}
START = VirtualClock().now()
DESK = Desk()
AGENT = DESK.agent()
"""Made once, and then shared by the forked processes, which have a folder each."""
DAY = timedelta(days=1)
SECONDS = 30
"""After this long a process hangs."""
ROUNDS = 40
"""How often the worker is called in a row, each time later; a job is given up long before."""


class Scenario:
    """The run of one store, at a time."""

    def __init__(self, store: str, later: timedelta = timedelta()) -> None:
        self.clock = VirtualClock(START + later)
        self.runtime = Runtime(settings(store), clock=self.clock)

    def close(self) -> None:
        self.runtime.close()

    async def prepare(self) -> None:
        """Runs until people have approved what the run proposes."""
        answered = await AGENT.run(GREETING, user="u-1", tenant="acme", conversation_id=CONVERSATION)
        assert answered.type == "answered", answered
        stopped: Any = await AGENT.run(REQUEST, user="u-1", tenant="acme", conversation_id=CONVERSATION)
        assert stopped.type == "awaiting_approval", stopped
        DESK.run_file.write_text(stopped.facts.run_id)
        for approval in stopped.approvals:
            person = "u-1" if approval.approver == "requester" else "mia"
            await self._write(decide(approval.approval_id, "approved", person, ROLES, None, self.clock.now()))

    async def resume(self, path: str) -> None:
        if path == "worker":
            await self.work()
        else:
            await AGENT.resume(DESK.run_id)

    async def work(self) -> None:
        await run_due_jobs(self.runtime, lambda _name: AGENT)

    async def work_until_nothing_is_due(self) -> None:
        """Runs the worker, and again after the delay of a job that is to be tried again, until none is left."""
        for _ in range(ROUNDS):
            await self.work()
            if not await self._read(_unfinished_resumes):
                return
            self.clock.advance(600)

    async def settle(self) -> list[tuple[str, bool]]:
        """Says of each uncertain action what the outside world says: the tool, and whether it acted."""
        settled = []
        for approval in await self._approvals():
            if approval["state"] in ("unknown_after_crash", "failed"):
                happened = approval["tool"] in DESK.effects()
                person = "u-1" if approval["approver"] == "requester" else "mia"
                now = self.clock.now()
                await self._write(settle_uncertain(approval["id"], happened, person, ROLES, "looked it up", now))
                settled.append((approval["tool"], happened))
        return settled

    async def status(self) -> str:
        return str((await self._read(load_run(DESK.run_id, self.clock.now()))).status)

    async def snapshot(self) -> dict[str, Any]:
        """What the store and the outside world hold now."""
        return {
            "status": await self.status(),
            "outcomes": [outcome.type for outcome in await self._read(load_outcomes(DESK.run_id))],
            "approvals": {approval["tool"]: approval["state"] for approval in await self._approvals()},
            "effects": DESK.effects(),
            "attempts": DESK.attempts(),
            "claimed_jobs": [row.key for row in await self._read(_jobs) if row.worker is not None],
        }

    async def balance(self) -> dict[str, Any]:
        """What is left open, and what was spent."""
        held = await self._read(lambda conn: conn.execute(select(holds.c.state, holds.c.settled_cost)).all())
        bodies = await self._read(load_conversation("acme", CONVERSATION))
        return {
            "holds": sorted({row.state for row in held}),
            "booked": sum(row.settled_cost or 0 for row in held),
            "used": COST * len(DESK.requests()),
            "discrepancies": await self._read(find_discrepancies()),
            "jobs": sorted({(row.state, row.worker) for row in await self._read(_jobs)}),
            "conversation": [part for body in bodies for part in _parts(body)],
        }

    async def _approvals(self) -> Any:
        return await self._read(lambda conn: _approvals_of(conn, DESK.run_id))

    async def _read(self, query: Callable[[Connection], Any]) -> Any:
        return await self.runtime.database.read(query)

    async def _write(self, op: Callable[[Connection], Any]) -> None:
        await self.runtime.database.write(op)


def _approvals_of(conn: Connection, run_id: str) -> list[dict[str, Any]]:
    rows = conn.execute(select(approvals).where(approvals.c.run_id == run_id).order_by(approvals.c.approval_id))
    return [{"id": row.approval_id, "tool": row.tool, "state": row.state, "approver": row.approver} for row in rows]


def _unfinished_resumes(conn: Connection) -> list[str]:
    query = select(jobs.c.key).where(jobs.c.kind == "resume_run", jobs.c.state == "waiting")
    return list(conn.execute(query).scalars())


def _jobs(conn: Connection) -> list[Any]:
    return list(conn.execute(select(jobs.c.key, jobs.c.state, jobs.c.worker)))


def _parts(body: bytes) -> list[str]:
    """The kind of each part of stored messages, with the tool's name where there is one."""
    return [
        " ".join(filter(None, (part["part_kind"], part.get("tool_name"))))
        for message in json.loads(body)
        for part in message["parts"]
    ]


def injure(store: str, path: str, injury: Injury, point: int, later: timedelta) -> str:
    """Resumes the run and injures it; returns how that ended, and whether the point was reached."""
    scenario = Scenario(store, later)
    runner = InjuredRunner(injury, point)
    try:
        with use_runtime(scenario.runtime):
            runner.run(lambda: scenario.resume(path))
        ended = "returned"
    except BaseException as error:  # noqa: BLE001 - the report says what was raised
        ended = type(error).__name__
        if isinstance(error, Stopped):
            # Threads that the loop has left behind finish what they do, as in a process that goes on without it.
            time.sleep(0.02)
    scenario.close()
    return f"{ended} {runner.reached}"


def go_on(store: str, injury: Injury, later: timedelta) -> None:
    """Lets the worker and a person bring the run to its end, and prints the report."""
    ended, reached = DESK.ended_file.read_text().split() if DESK.ended_file.exists() else ("killed", "True")
    report = {"injury": injury, "ended": ended, "injured": reached == "True", "soft": injury in SOFT}
    scenario = Scenario(store)
    with use_runtime(scenario.runtime):
        asyncio.run(_bring_to_end(scenario, report, later))
    scenario.close()
    print(json.dumps(report), flush=True)  # noqa: T201


async def _bring_to_end(scenario: Scenario, report: dict[str, Any], later: timedelta) -> None:
    report["at_once"] = await scenario.snapshot()
    scenario.clock.advance(later.total_seconds())
    await scenario.work_until_nothing_is_due()
    report["recovered"] = await scenario.snapshot()
    report["settlements"] = []
    while settled := await scenario.settle():
        report["settlements"] += settled
        assert len(report["settlements"]) < ROUNDS, "people are asked for ever"
        await scenario.work_until_nothing_is_due()
    report["settled"] = await scenario.snapshot()
    scenario.clock.advance(timedelta(days=5).total_seconds())
    await scenario.work_until_nothing_is_due()
    report["end"] = await scenario.balance()


def in_child(folder: str, work: Callable[[], object]) -> int:
    """Runs `work` in a forked process, in a folder, and returns its wait status."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        os.chdir(folder)
        try:
            work()
        except BaseException:  # noqa: BLE001 - an exception must not return into the parent's code
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def prepare(store: str) -> None:
    """Brings the run to its approvals."""
    scenario = Scenario(store)
    with use_runtime(scenario.runtime):
        asyncio.run(scenario.prepare())
    scenario.close()


def warm_up() -> None:
    """Runs everything once, since every forked process would have to import and compile it again."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        prepare("handrail.db")
        DESK.ended_file.write_text(injure("handrail.db", "worker", "cancel", -1, timedelta()))
        go_on("handrail.db", "cancel", timedelta())
    gc.collect()
    gc.freeze()


def injure_and_go_on(folder: str, store: str, path: str, injury: Injury, point: int, seconds: Sequence[int]) -> None:
    """Injures the run of a store in a process, kills another one at each of `seconds`, and goes on in a last one."""
    later = timedelta(seconds=1) if injury in SOFT else DAY
    status = in_child(folder, lambda: DESK.ended_file.write_text(injure(store, path, injury, point, timedelta())))
    assert status in (0, signal.SIGKILL), f"point {point}: the injured process ended with {status}"
    for second in seconds:
        status = in_child(folder, lambda: injure(store, "worker", "kill", second, later))  # noqa: B023
        assert status in (0, signal.SIGKILL), f"point {point}: the second process ended with {status}"
        later += DAY
    status = in_child(folder, lambda: go_on(store, injury, later))
    if status:
        print(json.dumps({"hung": status == signal.SIGALRM, "status": status}), flush=True)  # noqa: T201


def main() -> None:
    path, injury = sys.argv[1], sys.argv[2]
    point, step, *seconds = (int(number) for number in sys.argv[3:])
    warm_up()
    with tempfile.TemporaryDirectory() as prepared:
        status = in_child(prepared, lambda: prepare(sys.stdin.readline().strip()))
        assert status == 0, f"the first process ended with {status}"
        print("prepared", flush=True)  # noqa: T201
        for line in sys.stdin:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copytree(prepared, folder, dirs_exist_ok=True)
                injure_and_go_on(folder, line.strip(), path, injury, point, seconds)  # type: ignore[arg-type]
            point += step


if __name__ == "__main__":
    main()
