"""No governed spend above a cutoff: any number of callers and processes, whatever is killed."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import Ask
from handrail.ceilings.ledger import BATCH, LEASE, Hold, charge_expired, hold, settle
from handrail.ceilings.ledger_queries import AccountView, HoldView, audit, load_holds, spending
from handrail.ceilings.limits import Limits
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.schema import upgrade
from handrail.kernel.money import NanoUsd
from tests.crash.processes import running, said

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PRICE = 7
LANES = 10


@pytest.fixture
def address(store_url: str) -> str:
    """The address of a store whose tables are there."""
    upgrade(parsed(store_url, Path()))
    return store_url


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    opened = Database.open(address)
    yield opened
    opened.close()


def _limits(tenant_month: int) -> Limits:
    return Limits(10**9, 10**9, None, NanoUsd(tenant_month), ZoneInfo("UTC"))


@contextmanager
def _spending(address: str, processes: int, tenant_month: int) -> "Iterator[tuple[subprocess.Popen[str], list[int]]]":
    """Processes that spend, and their ids."""
    given = {
        "processes": processes,
        "lanes": LANES,
        "price": PRICE,
        "tenant_month": tenant_month,
        "now": NOW.isoformat(),
    }
    with running("spender", address, json.dumps(given)) as spender:
        yield spender, [int(pid) for pid in said(spender).split()]


def _printed(spender: "subprocess.Popen[str]") -> list[str]:
    assert spender.stdout is not None
    return spender.stdout.read().split()


def _tenant(database: Database, limits: Limits) -> AccountView:
    views = database.read_now(lambda conn: spending(conn, tenant="acme", now=NOW, limits=limits))
    [tenant] = [view for view in views if view.scope == "tenant"]
    return tenant


def _holds(database: Database, runs: Sequence[str]) -> dict[str, HoldView]:
    found = database.read_now(lambda conn: [each for run in runs for each in load_holds(conn, run)])
    return {each.hold_id: each for each in found}


def test_many_callers_spend_the_budget_and_not_more(address: str, database: Database) -> None:
    """Five processes with ten callers each on one small budget: what is granted never exceeds the cutoff, and
    everything that fits is granted."""
    tenant_month = 500
    cutoff = tenant_month * 120 // 100
    with _spending(address, processes=5, tenant_month=tenant_month) as (spender, _):
        granted = _printed(spender)
        assert spender.wait(60) == 0
    assert len(granted) == len(set(granted)) == cutoff // PRICE
    tenant = _tenant(database, _limits(tenant_month))
    assert tenant.spent.cost + tenant.held.cost == len(granted) * PRICE <= cutoff == tenant.cutoff
    assert database.read_now(audit) == []


async def test_killed_callers_leave_the_books_right(address: str, database: Database) -> None:
    """Three processes are killed while they spend: what they were granted is there, the books are right, what they held
    is charged when its lease is over, and whoever comes after them gets the rest, to the last hold."""
    tenant_month = 6_000
    limits, cutoff = _limits(tenant_month), tenant_month * 120 // 100
    with _spending(address, processes=3, tenant_month=tenant_month) as (spender, processes):
        granted = [said(spender) for _ in range(60)]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        granted += _printed(spender)
        assert spender.wait(60) == 3
    await _behind_what_is_under_way(database, limits)
    runs = [f"p{n}-{lane}" for n in range(3) for lane in range(LANES)]
    left = _holds(database, runs)
    assert set(granted) <= set(left)
    assert {each.state for each in left.values()} == {"held", "settled"}
    assert database.read_now(audit) == []
    taken = _tenant(database, limits)
    assert taken.spent.cost + taken.held.cost == len(left) * PRICE < cutoff

    while (await database.write(charge_expired(NOW + LEASE)))[0] == BATCH:
        pass
    charged = _tenant(database, limits)
    assert (charged.spent, charged.held.cost) == (taken.spent + taken.held, 0)
    assert {each.state for each in _holds(database, runs).values()} == {"charged", "settled"}

    rest = await asyncio.gather(*(_spend(database, limits, lane) for lane in range(16)))
    assert len(left) + sum(rest) == cutoff // PRICE
    assert _tenant(database, limits).held.cost == sum(rest) * PRICE
    assert database.read_now(audit) == []


async def _behind_what_is_under_way(database: Database, limits: Limits) -> None:
    """A hold has to wait for the tenant's account, so for a commit that a Postgres got from a client just killed."""
    [held] = await database.write(hold("behind", _ask("behind"), limits, NOW))
    await database.write(settle(held, Amount()))


async def _spend(database: Database, limits: Limits, lane: int) -> int:
    """How many holds a caller gets before it is refused."""
    ask = _ask(f"after-{lane}")
    granted = 0
    while isinstance((await database.write(hold(f"after-{lane}-{granted}", ask, limits, NOW)))[0], Hold):
        granted += 1
    return granted


def _ask(run: str) -> Ask:
    return Ask(run, "u-after", "acme", 10, 20, lambda _input, _output: NanoUsd(PRICE))
