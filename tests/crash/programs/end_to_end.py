"""Goes through all of tests/thread once for every commit, is killed at that commit, and starts again a day later.

thread.py FIRST STEP, then a store's address a line on standard input, one per crash: kill FIRST is done, then every
STEP-th. An even kill is right before its commit, an odd one right after it. Prints a line of JSON for each, and stops
after the first kill that never came, which it says.
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
from handrail.ceilings.ledger import holds
from handrail.ceilings.ledger_queries import audit
from handrail.evals.eval_set.model import freeze, load_set, lock_path
from handrail.evals.from_production.from_run import add_case
from handrail.evals.gate.gate import gate, set_baseline
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.store.baselines import newest_baseline
from handrail.review.approvals.store import approvals_of, decide, list_approvals
from handrail.review.feedback import verdicts_of
from handrail.runs.store.runs import list_runs, load_outcomes
from handrail.testing import VirtualClock, killed_at_commit
from handrail.worker import run_due
from tests.end_to_end.shop import CANCEL, CASES, CHARGED_TWICE, COST, MENDED, PROMPT, WORSE, Shop, append, settings

ROLES = {"lead": ("mia",)}
START = VirtualClock().now()


class Thread:
    """The whole thread on one store. Whatever is done already is not done again, so that a restart goes on."""

    def __init__(self, runtime: Runtime, shop: Shop) -> None:
        self._runtime = runtime
        self._shop = shop
        self._told = shop.folder / "told.log"

    async def go(self) -> None:
        now = self._runtime.clock.now()
        if not lock_path(self._shop.cases).exists():
            freeze(self._shop.cases, "the first cases", now.date())
        agent = self._shop.agent(PROMPT)
        await self._asked(CHARGED_TWICE, "u-1")
        for each in await self._read(list_approvals, state="pending", tenant="acme", limit=9, before=None):
            await self._runtime.database.write(decide(each.approval_id, "approved", "mia", ROLES, None, now))
            self._acknowledge("approved", each.approval_id)
        await run_due(self._runtime, lambda _name: agent)
        wrong = await self._asked(CANCEL, "u-2")
        if not await self._read(verdicts_of, run_id=wrong):
            await feedback(wrong, right=False, should={"category": "cancel"}, by="ann")
            self._acknowledge("marked", wrong)
        [verdict] = await self._read(verdicts_of, run_id=wrong)
        if verdict.case_id is None:
            await add_case(self._runtime, agent, wrong, why="customers stop orders", by="ann")
            self._acknowledge("case", wrong)
        set_hash = load_set(self._shop.cases).content_hash
        if await self._read(newest_baseline, agent="shop", set_hash=set_hash) is None:
            await set_baseline(self._runtime, agent, by="ann", trials=2)
            self._acknowledge("baseline", set_hash)
        verdicts = [each.verdict.passed for each in await self._read(list_gates, agent="shop", limit=9)]
        for prompt, passes in ((WORSE, False), (MENDED, True)):
            if passes not in verdicts:
                found = await gate(self._runtime, self._shop.agent(prompt))
                assert found.verdict.passed is passes
                self._acknowledge("gate", str(passes))

    async def found(self) -> dict[str, Any]:
        """What the store says at the end, beside what the logs of the world say."""
        runs = await self._read(
            list_runs, now=self._runtime.clock.now(), tenant="acme", agent=None, limit=99, before=None
        )
        approvals = [each for run in runs for each in await self._read(approvals_of, run_id=run.run_id)]
        held = await self._runtime.database.read(
            lambda conn: conn.execute(select(holds.c.state, holds.c.settled_cost)).all()
        )
        return {
            "runs": {run.run_id: [o.type for o in await self._read(load_outcomes, run_id=run.run_id)] for run in runs},
            "states": {run.run_id: run.status for run in runs},
            "approvals": {each.approval_id: each.state for each in approvals},
            "marked": [run.run_id for run in runs if await self._read(verdicts_of, run_id=run.run_id)],
            "gates": [each.verdict.passed for each in await self._read(list_gates, agent="shop", limit=9)],
            "cases": len(load_set(self._shop.cases).cases),
            "holds": [row.state for row in held],
            "booked": sum(row.settled_cost or 0 for row in held),
            "books": await self._runtime.database.read(audit),
            "used": COST * len(_lines(self._shop.calls)),
            "refunds": _lines(self._shop.refunds),
            "told": [line.split() for line in _lines(self._told)],
        }

    async def _asked(self, text: str, user: str) -> str:
        """The id of the user's run that did not die; asks anew where there is none, as a user would."""
        now = self._runtime.clock.now()
        runs = await self._read(list_runs, now=now, tenant="acme", agent=None, limit=99, before=None)
        known = [str(run.run_id) for run in runs if run.user == user and run.status != "interrupted"]
        if known:
            return known[0]
        outcome = await self._shop.agent(PROMPT).run(text, user=user, tenant="acme")
        self._acknowledge(outcome.type, outcome.facts.run_id)
        return str(outcome.facts.run_id)

    def _acknowledge(self, what: str, which: str) -> None:
        append(self._told, f"{what} {which}")

    async def _read(self, query: Callable[..., Any], **arguments: Any) -> Any:
        return await self._runtime.database.read(lambda conn: query(conn, **arguments))


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _in_a_process(work: Callable[[], None]) -> int:
    """Runs `work` in a process of its own and gives its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - nothing may come back out of the child
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _open(shop: Shop, store: str, later: timedelta) -> Runtime:
    return Runtime(settings(shop.folder, store), clock=VirtualClock(START + later))


def _until_killed(shop: Shop, store: str, kill: int) -> None:
    runtime = _open(shop, store, timedelta())
    killed_at_commit(runtime.database, kill)
    with use_runtime(runtime):
        asyncio.run(Thread(runtime, shop).go())


def _start_again(shop: Shop, store: str, killed: bool) -> None:
    runtime = _open(shop, store, timedelta(days=1))
    thread = Thread(runtime, shop)
    with use_runtime(runtime):
        asyncio.run(run_due(runtime, lambda _name: shop.agent(PROMPT)))
        asyncio.run(thread.go())
        print(json.dumps({"killed": killed, **asyncio.run(thread.found())}), flush=True)  # noqa: T201
    runtime.close()


def main() -> None:
    kill, step = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as made:
            shop, store = Shop(Path(made)), line.strip()
            shop.cases.write_text(CASES)
            first = _in_a_process(lambda: _until_killed(shop, store, kill))  # noqa: B023
            assert first in (0, 9), f"kill {kill}: the first process ended with {first}"
            again = _in_a_process(lambda: _start_again(shop, store, killed=first != 0))  # noqa: B023
            assert again == 0, f"kill {kill}: the new start ended with {again}"
        if first == 0:
            return
        kill += step


main()
