"""What a ceiling costs, and whether it holds: holds and settles on both stores, alone and 50 at once."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from zoneinfo import ZoneInfo

from bench.figure import Figure
from bench.measure import raw_fsync_ms
from handrail.ceilings.decision import Ask
from handrail.ceilings.ledger import Hold, hold, settle
from handrail.ceilings.ledger_queries import spending
from handrail.ceilings.limits import Limits
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from handrail.kernel.money import NanoUsd
from tests.services.postgres import find_programs, running_postgres

ROUNDS = 15
PAIRS = 40
AT_ONCE = 50
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PRICE = NanoUsd(10_500_000)
BUDGET = NanoUsd(50_000_000)
_ROOMY = Limits(10**12, 10**12, NanoUsd(10**17), NanoUsd(10**17), ZoneInfo("UTC"))
_numbers = itertools.count()


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as made, asyncio.Runner() as runner:
        folder = Path(made)
        database = Database.open(str(folder / "bench.db"))
        sqlite = "SQLite with synchronous=FULL"
        found = [
            *_speeds(runner, database, "", sqlite),
            _overspend(runner, database, "", sqlite),
            Figure("raw_fsync_ms", raw_fsync_ms(folder), "ms", "lower", "median of 4 KiB appends, same disk"),
        ]
        database.close()
        return [*found, *_on_postgres(runner)]


def _on_postgres(runner: asyncio.Runner) -> Iterator[Figure]:
    programs = find_programs()
    if programs is None:
        return
    with running_postgres(programs) as server, server.database() as address:
        upgrade(store_url(address, Path()))
        database = Database.open(address)
        how = "Postgres on a Unix socket, fsync off"
        yield from _speeds(runner, database, "postgres_", how)
        yield _overspend(runner, database, "postgres_", how)
        database.close()


def _ask(tenant: str, lane: int) -> Ask:
    return Ask(f"r-{next(_numbers)}", f"u-{lane}", tenant, 1_000, 500, lambda _input, _output: PRICE)


async def _hold(database: Database, ask: Ask, limits: Limits) -> bool:
    [held] = await database.write(hold(f"h-{next(_numbers)}", ask, limits, NOW))
    return isinstance(held, Hold)


def _speeds(runner: asyncio.Runner, database: Database, prefix: str, store: str) -> Iterator[Figure]:
    async def pairs() -> float:
        start = time.perf_counter()
        for _ in range(PAIRS):
            [held] = await database.write(hold(f"h-{next(_numbers)}", _ask("acme", 0), _ROOMY, NOW))
            await database.write(settle(held, held.amount))
        return (time.perf_counter() - start) / PAIRS * 1e3

    async def at_once() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(_hold(database, _ask("acme", lane), _ROOMY) for lane in range(AT_ONCE)))
        return AT_ONCE / (time.perf_counter() - start)

    for work in (pairs, at_once):
        runner.run(work())
    alone = median(runner.run(pairs()) for _ in range(ROUNDS))
    rate = median(runner.run(at_once()) for _ in range(ROUNDS))
    how = f"median of {ROUNDS} rounds; {store}; each hold opens a run of its own in one tenant"
    yield Figure(f"{prefix}hold_and_settle_ms", alone, "ms", "lower", f"two commits, one pair after another; {how}")
    yield Figure(f"{prefix}holds_per_s_50_at_once", rate, "holds/s", "higher", f"{AT_ONCE} callers on one loop; {how}")


def _overspend(runner: asyncio.Runner, database: Database, prefix: str, store: str) -> Figure:
    """How far 50 callers at once, at $0.0105 each, get above a user's $0.05."""
    limits = Limits(10**12, 10**12, BUDGET, None, ZoneInfo("UTC"))

    async def spend() -> int:
        return sum(await asyncio.gather(*(_hold(database, _ask("small", 0), limits) for _ in range(AT_ONCE))))

    admitted = runner.run(spend())
    views = database.read_now(spending(tenant="small", now=NOW, limits=limits))
    taken = max(view.spent.cost + view.held.cost for view in views)
    how = f"{AT_ONCE} callers at $0.0105 each on a budget of $0.05; {admitted} admitted, {BUDGET // PRICE} fit; {store}"
    return Figure(f"{prefix}overspend_50_callers", max(taken - BUDGET, 0) / 1e9, "$", "lower", how)
