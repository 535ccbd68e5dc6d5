"""Governed spend never exceeds a cutoff, with many callers and processes and after kills."""

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
from handrail.ceilings.decision import HoldRequest
from handrail.ceilings.ledger import BATCH, LEASE, Hold, charge_expired, hold, settle
from handrail.ceilings.ledger_queries import AccountView, HoldView, find_discrepancies, load_holds, load_spending
from handrail.ceilings.limits import Limits
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.schema import upgrade
from handrail.kernel.money import NanoUsd
from tests.crash.processes import read_line, running

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PRICE = 7
LANES = 10


@pytest.fixture
def address(store_url: str) -> str:
    """The address of a store with its tables."""
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
    """Starts processes that place holds, and yields them with their ids."""
    limits = {
        "processes": processes,
        "lanes": LANES,
        "price": PRICE,
        "tenant_month": tenant_month,
        "now": NOW.isoformat(),
    }
    with running("spender", address, json.dumps(limits)) as spender:
        yield spender, [int(pid) for pid in read_line(spender).split()]


def _printed(spender: "subprocess.Popen[str]") -> list[str]:
    assert spender.stdout is not None
    return spender.stdout.read().split()


def _tenant(database: Database, limits: Limits) -> AccountView:
    views = database.read_now(load_spending(tenant="acme", now=NOW, limits=limits))
    [tenant] = [view for view in views if view.scope == "tenant"]
    return tenant


def _holds(database: Database, runs: Sequence[str]) -> dict[str, HoldView]:
    views = database.read_now(lambda conn: [view for run in runs for view in load_holds(run)(conn)])
    return {view.hold_id: view for view in views}


def test_many_callers_spend_the_budget_and_not_more(address: str, database: Database) -> None:
    """Five processes with ten callers each get exactly as many holds as fit under the cutoff."""
    tenant_month = 500
    cutoff = tenant_month * 120 // 100
    with _spending(address, processes=5, tenant_month=tenant_month) as (spender, _):
        granted = _printed(spender)
        assert spender.wait(60) == 0
    assert len(granted) == len(set(granted)) == cutoff // PRICE
    tenant = _tenant(database, _limits(tenant_month))
    assert tenant.spent.cost + tenant.held.cost == len(granted) * PRICE <= cutoff == tenant.cutoff
    assert database.read_now(find_discrepancies()) == []


async def test_killed_callers_leave_the_ledger_consistent(address: str, database: Database) -> None:
    """After three processes are killed, their holds are stored, the ledger is consistent, open holds are charged when
    their lease ends, and later callers get exactly what is left."""
    tenant_month = 6_000
    limits, cutoff = _limits(tenant_month), tenant_month * 120 // 100
    with _spending(address, processes=3, tenant_month=tenant_month) as (spender, processes):
        granted = [read_line(spender) for _ in range(60)]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        granted += _printed(spender)
        assert spender.wait(60) == 3
    await _wait_for_commits_in_flight(database, limits)
    runs = [f"p{n}-{lane}" for n in range(3) for lane in range(LANES)]
    stored = _holds(database, runs)
    assert set(granted) <= set(stored)
    assert {view.state for view in stored.values()} == {"held", "settled"}
    assert database.read_now(find_discrepancies()) == []
    before = _tenant(database, limits)
    assert before.spent.cost + before.held.cost == len(stored) * PRICE < cutoff

    while len((await database.write(charge_expired(NOW + LEASE)))[0]) == BATCH:
        pass
    charged = _tenant(database, limits)
    assert (charged.spent, charged.held.cost) == (before.spent + before.held, 0)
    assert {view.state for view in _holds(database, runs).values()} == {"charged", "settled"}

    rest = await asyncio.gather(*(_spend(database, limits, lane) for lane in range(16)))
    assert len(stored) + sum(rest) == cutoff // PRICE
    assert _tenant(database, limits).held.cost == sum(rest) * PRICE
    assert database.read_now(find_discrepancies()) == []


async def _wait_for_commits_in_flight(database: Database, limits: Limits) -> None:
    """Postgres may still commit for a client that was killed; a hold waits for it at the tenant's account."""
    [held] = await database.write(hold("behind", _request("behind"), limits, NOW))
    await database.write(settle(held, Amount()))


async def _spend(database: Database, limits: Limits, lane: int) -> int:
    """Places holds until one is refused, and returns how many were granted."""
    request = _request(f"after-{lane}")
    granted = 0
    while isinstance((await database.write(hold(f"after-{lane}-{granted}", request, limits, NOW)))[0], Hold):
        granted += 1
    return granted


def _request(run: str) -> HoldRequest:
    return HoldRequest(run, "u-after", "acme", 10, 20, lambda _input, _output: NanoUsd(PRICE))
