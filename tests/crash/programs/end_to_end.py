"""Kills the scenario of tests/end_to_end at a commit and restarts it a day later, once for each commit.

end_to_end.py FIRST STEP, then one store address per line on standard input, one per crash: the kill at commit FIRST,
then at every STEP-th. An even kill is right before its commit, an odd one right after it. Prints a line of JSON for
each kill, and stops once the scenario ends before the kill; that line has `killed` false.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from handrail import Runtime, feedback, use_runtime
from handrail.ceilings.ledger_queries import find_discrepancies
from handrail.ceilings.tables import holds
from handrail.evals.eval_set.lock import freeze, lock_path
from handrail.evals.eval_set.model import load_eval_set
from handrail.evals.from_production.from_run import add_case
from handrail.evals.gate.baseline import create_baseline
from handrail.evals.gate.gate import run_gate
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.store.baselines import newest_baseline
from handrail.review.approvals.queries import list_approvals, load_approvals
from handrail.review.approvals.store import decide
from handrail.review.feedback import load_feedback
from handrail.runs.store.queries import list_runs, load_outcomes
from handrail.testing import VirtualClock, kill_at_commit
from handrail.worker import run_due_jobs
from tests.end_to_end.shop import CANCEL, CASES, CHARGED_TWICE, COST, FIXED, PROMPT, WORSE, Shop, append, settings

ROLES = {"lead": ("mia",)}
START = VirtualClock().now()


class Scenario:
    """The whole scenario on one store. Steps that are done are skipped, so that a restart continues."""

    def __init__(self, runtime: Runtime, shop: Shop) -> None:
        self._runtime = runtime
        self._shop = shop
        self._acknowledged = shop.folder / "acknowledged.log"

    async def run(self) -> None:
        now = self._runtime.clock.now()
        if not lock_path(self._shop.cases).exists():
            freeze(self._shop.cases, "the first cases", now.date())
        agent, spec = self._shop.agent(PROMPT), self._shop.spec(PROMPT)
        await self._ask(CHARGED_TWICE, "u-1")
        for approval in await self._read(list_approvals, now=now, state="pending", tenant="acme", limit=9, before=None):
            await self._runtime.database.write(decide(approval.approval_id, "approved", "mia", ROLES, None, now))
            self._acknowledge("approved", approval.approval_id)
        await run_due_jobs(self._runtime, lambda _name: agent)
        wrong = await self._ask(CANCEL, "u-2")
        if not await self._read(load_feedback, run_id=wrong):
            await feedback(wrong, right=False, expected={"category": "cancel"}, by="ann")
            self._acknowledge("feedback", wrong)
        [entry] = await self._read(load_feedback, run_id=wrong)
        if entry.case_id is None:
            await add_case(self._runtime, spec, wrong, why="customers stop orders", by="ann")
            self._acknowledge("case", wrong)
        set_hash = load_eval_set(self._shop.cases).content_hash
        if await self._read(newest_baseline, agent="shop", set_hash=set_hash) is None:
            await create_baseline(self._runtime, spec, by="ann", trials=2)
            self._acknowledge("baseline", set_hash)
        verdicts = [gate.verdict.passed for gate in await self._read(list_gates, agent="shop", limit=9)]
        for prompt, passes in ((WORSE, False), (FIXED, True)):
            if passes not in verdicts:
                gate = await run_gate(self._runtime, self._shop.spec(prompt))
                assert gate.verdict.passed is passes
                self._acknowledge("gate", str(passes))

    async def report(self) -> dict[str, Any]:
        """The final state of the store, with the logs of requests, refunds and acknowledgements."""
        now = self._runtime.clock.now()
        runs = await self._read(list_runs, now=now, tenant="acme", agent=None, limit=99, before=None)
        approvals = [a for run in runs for a in await self._read(load_approvals, run_id=run.run_id, now=now)]
        held = await self._runtime.database.read(
            lambda conn: conn.execute(select(holds.c.state, holds.c.settled_cost)).all()
        )
        return {
            "runs": {run.run_id: [o.type for o in await self._read(load_outcomes, run_id=run.run_id)] for run in runs},
            "states": {run.run_id: run.status for run in runs},
            "approvals": {approval.approval_id: approval.state for approval in approvals},
            "feedback": [run.run_id for run in runs if await self._read(load_feedback, run_id=run.run_id)],
            "gates": [gate.verdict.passed for gate in await self._read(list_gates, agent="shop", limit=9)],
            "cases": len(load_eval_set(self._shop.cases).cases),
            "holds": [row.state for row in held],
            "booked": sum(row.settled_cost or 0 for row in held),
            "discrepancies": await self._runtime.database.read(find_discrepancies()),
            "used": COST * len(_lines(self._shop.calls)),
            "refunds": _lines(self._shop.refunds),
            "acknowledged": [line.split() for line in _lines(self._acknowledged)],
        }

    async def _ask(self, text: str, user: str) -> str:
        """The id of the user's run that was not interrupted; without one, asks again, as a user would."""
        now = self._runtime.clock.now()
        runs = await self._read(list_runs, now=now, tenant="acme", agent=None, limit=99, before=None)
        run_ids = [str(run.run_id) for run in runs if run.user == user and run.status != "interrupted"]
        if run_ids:
            return run_ids[0]
        outcome = await self._shop.agent(PROMPT).run(text, user=user, tenant="acme")
        self._acknowledge(outcome.type, outcome.facts.run_id)
        return str(outcome.facts.run_id)

    def _acknowledge(self, event: str, event_id: str) -> None:
        append(self._acknowledged, f"{event} {event_id}")

    async def _read(self, query: Callable[..., Any], **arguments: Any) -> Any:
        return await self._runtime.database.read(query(**arguments))


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - an exception must not return into the parent's code
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _open(shop: Shop, store: str, later: timedelta) -> Runtime:
    return Runtime(settings(shop.folder, store), clock=VirtualClock(START + later))


def _until_killed(shop: Shop, store: str, kill: int) -> None:
    runtime = _open(shop, store, timedelta())
    kill_at_commit(runtime, kill)
    with use_runtime(runtime):
        asyncio.run(Scenario(runtime, shop).run())


def _restart(shop: Shop, store: str, killed: bool) -> None:
    runtime = _open(shop, store, timedelta(days=1))
    scenario = Scenario(runtime, shop)
    with use_runtime(runtime):
        asyncio.run(run_due_jobs(runtime, lambda _name: shop.agent(PROMPT)))
        asyncio.run(scenario.run())
        print(json.dumps({"killed": killed, **asyncio.run(scenario.report())}), flush=True)  # noqa: T201
    runtime.close()


def main() -> None:
    kill, step = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            shop, store = Shop(Path(folder)), line.strip()
            shop.cases.write_text(CASES)
            first_status = _in_child(lambda: _until_killed(shop, store, kill))  # noqa: B023
            assert first_status in (0, 9), f"kill {kill}: the first process ended with {first_status}"
            status = _in_child(lambda: _restart(shop, store, killed=first_status != 0))  # noqa: B023
            assert status == 0, f"kill {kill}: the restart ended with {status}"
        if first_status == 0:
            return
        kill += step


main()
