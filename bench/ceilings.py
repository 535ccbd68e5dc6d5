"""What a ceiling costs and whether it is kept: holds and settles on both stores, one at a time and 50 concurrently."""

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
from handrail.ceilings.decision import HoldRequest
from handrail.ceilings.ledger import Hold, hold, settle
from handrail.ceilings.ledger_queries import load_spending
from handrail.ceilings.limits import Limits
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from handrail.kernel.money import NanoUsd
from tests.services.postgres import find_programs, running_postgres

ROUNDS = 15
PAIRS = 40
CALLERS = 50
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PRICE = NanoUsd(10_500_000)
BUDGET = NanoUsd(50_000_000)
_AMPLE_LIMITS = Limits(10**12, 10**12, NanoUsd(10**17), NanoUsd(10**17), ZoneInfo("UTC"))
_numbers = itertools.count()


def figures() -> list[Figure]:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as path, asyncio.Runner() as runner:
        folder = Path(path)
        database = Database.open(str(folder / "bench.db"))
        sqlite = "SQLite with synchronous=FULL"
        measured = [
            *_speeds(runner, database, "", sqlite),
            _overspend(runner, database, "", sqlite),
            Figure("raw_fsync_ms", raw_fsync_ms(folder), "ms", "lower", "median of 4 KiB appends, same disk"),
        ]
        database.close()
        return [*measured, *_on_postgres(runner)]


def _on_postgres(runner: asyncio.Runner) -> Iterator[Figure]:
    programs = find_programs()
    if programs is None:
        return
    with running_postgres(programs) as server, server.database() as address:
        upgrade(store_url(address, Path()))
        database = Database.open(address)
        store = "Postgres on a Unix socket, fsync off"
        yield from _speeds(runner, database, "postgres_", store)
        yield _overspend(runner, database, "postgres_", store)
        database.close()


def _hold_request(tenant: str, user: int) -> HoldRequest:
    return HoldRequest(f"r-{next(_numbers)}", f"u-{user}", tenant, 1_000, 500, lambda _input, _output: PRICE)


async def _hold(database: Database, request: HoldRequest, limits: Limits) -> bool:
    [result] = await database.write(hold(f"h-{next(_numbers)}", request, limits, NOW))
    return isinstance(result, Hold)


def _speeds(runner: asyncio.Runner, database: Database, prefix: str, store: str) -> Iterator[Figure]:
    async def pair_ms() -> float:
        start = time.perf_counter()
        for _ in range(PAIRS):
            [held] = await database.write(hold(f"h-{next(_numbers)}", _hold_request("acme", 0), _AMPLE_LIMITS, NOW))
            await database.write(settle(held, held.amount))
        return (time.perf_counter() - start) / PAIRS * 1e3

    async def concurrent_rate() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(_hold(database, _hold_request("acme", user), _AMPLE_LIMITS) for user in range(CALLERS)))
        return CALLERS / (time.perf_counter() - start)

    for warm_up in (pair_ms, concurrent_rate):
        runner.run(warm_up())
    sequential_ms = median(runner.run(pair_ms()) for _ in range(ROUNDS))
    rate = median(runner.run(concurrent_rate()) for _ in range(ROUNDS))
    method = f"median of {ROUNDS} rounds; {store}; each hold opens a run of its own in one tenant"
    yield Figure(
        f"{prefix}hold_and_settle_ms", sequential_ms, "ms", "lower", f"two commits, one pair after another; {method}"
    )
    yield Figure(
        f"{prefix}holds_per_s_50_at_once", rate, "holds/s", "higher", f"{CALLERS} callers on one loop; {method}"
    )


def _overspend(runner: asyncio.Runner, database: Database, prefix: str, store: str) -> Figure:
    """By how much 50 concurrent callers, at $0.0105 each, exceed a user's budget of $0.05."""
    limits = Limits(10**12, 10**12, BUDGET, None, ZoneInfo("UTC"))

    async def spend() -> int:
        return sum(await asyncio.gather(*(_hold(database, _hold_request("small", 0), limits) for _ in range(CALLERS))))

    admitted = runner.run(spend())
    views = database.read_now(load_spending(tenant="small", now=NOW, limits=limits))
    used = max(view.spent.cost + view.held.cost for view in views)
    method = (
        f"{CALLERS} callers at $0.0105 each on a budget of $0.05; {admitted} admitted, {BUDGET // PRICE} fit; {store}"
    )
    return Figure(f"{prefix}overspend_50_callers", max(used - BUDGET, 0) / 1e9, "$", "lower", method)
