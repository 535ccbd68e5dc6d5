"""The ledger, on every engine."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, delete, update

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import HoldRequest, Refusal
from handrail.ceilings.ledger import BATCH, LEASE, Hold, charge_expired, hold, settle
from handrail.ceilings.ledger_queries import HoldView, find_discrepancies, load_holds, load_spending
from handrail.ceilings.limits import Limits
from handrail.ceilings.tables import accounts, holds
from handrail.ceilings.windows import Window
from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import enqueue
from handrail.kernel.money import NanoUsd

NOW = datetime(2026, 3, 31, 23, 50, tzinfo=UTC)
TODAY = Window(datetime(2026, 3, 31, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
MARCH = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
LIMITS = Limits(1_000, 1_000, NanoUsd(100), NanoUsd(1_000), ZoneInfo("UTC"))
numbers = itertools.count()


def _price(_input: int, _output: int) -> NanoUsd:
    return NanoUsd(7)


def _request(user: str = "u-1", tenant: str = "acme", run: str = "r-1", output_tokens: int = 20) -> HoldRequest:
    return HoldRequest(run, user, tenant, 10, output_tokens, _price)


async def _hold(database: Database, request: HoldRequest, now: datetime = NOW, limits: Limits = LIMITS) -> Hold:
    [held] = await database.write(hold(f"h-{next(numbers)}", request, limits, now))
    assert isinstance(held, Hold)
    return held


async def _views(database: Database, now: datetime = NOW, tenant: str | None = None) -> list[tuple[object, ...]]:
    views = await database.read(load_spending(tenant=tenant, now=now, limits=LIMITS))
    return [(view.scope, view.tenant, view.user, view.spent.cost, view.held.cost) for view in views]


async def _holds(database: Database, run: str = "r-1") -> list[HoldView]:
    return await database.read(load_holds(run))


async def _is_consistent(database: Database) -> bool:
    return await database.read(find_discrepancies()) == []


async def test_a_hold_is_on_three_accounts(database: Database) -> None:
    """A hold is on the accounts of the tenant's month, the user's day and the run."""
    held = await _hold(database, _request())
    assert held.amount == Amount(NanoUsd(7), 10, 20)
    assert held.output_tokens == 20
    assert await _views(database) == [("tenant", "acme", None, 0, 7), ("user", "acme", "u-1", 0, 7)]
    assert await _holds(database) == [
        HoldView(
            hold_id=held.hold_id,
            run_id="r-1",
            tenant="acme",
            user="u-1",
            state="held",
            held=held.amount,
            settled=None,
            made_at=NOW,
            lease_until=NOW + LEASE,
        )
    ]
    assert await _is_consistent(database)


async def test_settling_replaces_the_hold(database: Database) -> None:
    """After settling nothing is held, and the usage is spent."""
    held = await _hold(database, _request())
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used)) == [True]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    [view] = await _holds(database)
    assert (view.state, view.settled) == ("settled", used)
    assert await _is_consistent(database)


async def test_a_hold_is_settled_once(database: Database) -> None:
    """Settling again, in the same write or a later one, changes nothing and returns False."""
    held = await _hold(database, _request())
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used), settle(held, used + used)) == [True, False]
    assert await database.write(settle(held, Amount())) == [False]
    assert (await _views(database))[0] == ("tenant", "acme", None, 3, 0)


async def test_usage_above_the_hold_is_booked(database: Database) -> None:
    """Usage above the hold is booked in full, and the next request is refused."""
    held = await _hold(database, _request())
    await database.write(settle(held, Amount(NanoUsd(2_000), 10, 20)))
    [refusal] = await database.write(hold("next", _request(), LIMITS, NOW))
    assert isinstance(refusal, Refusal)
    assert (refusal.scope, refusal.limit, refusal.spent, refusal.fits) == ("tenant", 1_200, 2_000, 0)
    assert await _is_consistent(database)


async def test_a_refusal_does_not_affect_other_operations(database: Database) -> None:
    """A refusal is a value: it writes no hold, and the other operations of its write are committed."""
    empty = Limits(1_000, 1_000, NanoUsd(6), None, ZoneInfo("UTC"))
    results = await database.write(enqueue("test", "k", {}, NOW), hold("h", _request(), empty, NOW))
    assert results[0] is True
    assert isinstance(results[1], Refusal)
    assert await database.write(enqueue("test", "k", {}, NOW)) == [False]
    assert await _holds(database) == []


async def test_a_hold_is_part_of_its_write(database: Database) -> None:
    """If the write with a hold fails, nothing is held."""

    def boom(_conn: Connection) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await database.write(hold("h", _request(), LIMITS, NOW), boom)
    assert await _holds(database) == []
    assert await _views(database) == []


async def test_settling_and_holding_in_one_write(database: Database) -> None:
    """Tokens that a settlement releases can be held again in the same write."""
    small = Limits(1_000, 20, None, None, ZoneInfo("UTC"))
    held = await _hold(database, _request(), limits=small)
    settled, again = await database.write(
        settle(held, Amount(NanoUsd(1), 5, 12)), hold("again", _request(), small, NOW)
    )
    assert settled is True
    assert isinstance(again, Hold)
    assert again.output_tokens == 8


async def test_a_new_day_and_month_start_empty(database: Database) -> None:
    """After midnight accounts are new, and an earlier hold is settled on its own account."""
    held = await _hold(database, _request())
    tomorrow = NOW + timedelta(minutes=10)
    assert await _views(database, tomorrow) == []
    await _hold(database, _request(), tomorrow)
    await database.write(settle(held, Amount(NanoUsd(3), 8, 5)))
    assert await _views(database, tomorrow) == [("tenant", "acme", None, 0, 7), ("user", "acme", "u-1", 0, 7)]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    assert await _is_consistent(database)


async def test_a_run_continues_after_midnight(database: Database) -> None:
    """A run's tokens are counted over all its requests, also across midnight."""
    small = Limits(1_000, 30, None, None, ZoneInfo("UTC"))
    await _hold(database, _request(), limits=small)
    later = await _hold(database, _request(), NOW + timedelta(minutes=20), small)
    assert later.output_tokens == 10


async def test_an_expired_hold_is_charged(database: Database) -> None:
    """A hold that is not settled is charged once, in full, from the end of its lease on."""
    await _hold(database, _request())
    assert await database.write(charge_expired(NOW + LEASE - timedelta(microseconds=1))) == [[]]
    first, second = await database.write(charge_expired(NOW + LEASE), charge_expired(NOW + LEASE))
    assert (len(first), len(second)) == (1, 0)
    assert await _views(database) == [("tenant", "acme", None, 7, 0), ("user", "acme", "u-1", 7, 0)]
    [view] = await _holds(database)
    assert (view.state, view.settled) == ("charged", view.held)
    assert await _is_consistent(database)


async def test_a_late_answer_corrects_a_charge(database: Database) -> None:
    """A charged hold is settled at the real usage if a late response arrives, once."""
    held = await _hold(database, _request())
    await database.write(charge_expired(NOW + LEASE))
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used), settle(held, used)) == [True, False]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    assert await _is_consistent(database)


async def test_expired_holds_are_charged_in_batches(database: Database) -> None:
    """More expired holds than a batch take more than one call, the longest overdue first."""
    large = Limits(10**6, 10**6, None, None, ZoneInfo("UTC"))
    many = [hold(f"b-{n}", _request(), large, NOW + timedelta(seconds=n)) for n in range(BATCH + 1)]
    await database.write(*many)
    late = NOW + 2 * LEASE
    [charged] = await database.write(charge_expired(late))
    assert len(charged) == BATCH
    assert [view.hold_id for view in await _holds(database) if view.state == "held"] == [f"b-{BATCH}"]
    [charged] = await database.write(charge_expired(late))
    assert len(charged) == 1
    assert await _is_consistent(database)


SIMILAR_NAMES = [
    ("a", "b"),
    ("b", "a"),
    ("b", "b"),
    ('a", "b', "c"),
    ("a", 'b", "c'),
    ("a\\", "b"),
    ("a", "\\b"),
    ("a/b", "c"),
    ("a", "b/c"),
    ("\u00e9", "u"),
    ("e\u0301", "u"),
    ("%", "u"),
    ("_", "u"),
    ("A", "b"),
    ("a ", "b"),
]
"""Pairs of tenant and user that look similar but differ."""


async def test_similar_names_have_separate_accounts(database: Database) -> None:
    """Tenants and users with similar names have separate accounts."""
    for tenant, user in SIMILAR_NAMES:
        await _hold(database, _request(user, tenant))
    views = await _views(database)
    users = [(tenant, user, held) for scope, tenant, user, _, held in views if scope == "user"]
    assert sorted(users, key=str) == sorted(((*pair, 7) for pair in SIMILAR_NAMES), key=str)
    tenants = {tenant: held for scope, tenant, _, _, held in views if scope == "tenant"}
    assert tenants == {name: 7 * sum(tenant == name for tenant, _ in SIMILAR_NAMES) for name, _ in SIMILAR_NAMES}
    assert await _is_consistent(database)


async def test_names_of_200_characters_fit(database: Database) -> None:
    """The longest valid names, with four-byte characters, have accounts."""
    await _hold(database, _request(user="\U0001f600" * 200, tenant="\U0001f601" * 200))
    assert len(await _views(database)) == 2


async def test_the_fullest_accounts_come_first(database: Database) -> None:
    """Spending is listed by the sum of spent and held, for one tenant if given, and up to the limit."""
    for user, times in (("u-1", 1), ("u-2", 3), ("u-3", 2)):
        for _ in range(times):
            await _hold(database, _request(user))
    await _hold(database, _request(tenant="other"))
    assert [view[2] for view in await _views(database, tenant="acme")] == [None, "u-2", "u-3", "u-1"]
    assert len(await _views(database)) == 6
    first = await database.read(load_spending(tenant=None, now=NOW, limits=LIMITS, limit=1))
    assert [(view.window, view.limit, view.cutoff) for view in first] == [(MARCH, 1_000, 1_200)]
    both = await database.read(load_spending(tenant="other", now=NOW, limits=LIMITS))
    assert [(view.window, view.limit, view.cutoff) for view in both] == [(MARCH, 1_000, 1_200), (TODAY, 100, 100)]


async def test_the_audit_finds_wrong_accounts(database: Database) -> None:
    """The audit reports accounts with a wrong sum, missing accounts, and accounts without holds."""
    await _hold(database, _request())
    await database.write(
        lambda conn: conn.execute(update(accounts).where(accounts.c.scope == "user").values(held_cost=8))
    )
    [line] = await database.read(find_discrepancies())
    assert '"user"' in line
    assert "held_cost is 8 where its holds sum to 7" in line
    await database.write(lambda conn: conn.execute(delete(accounts).where(accounts.c.scope == "user")))
    [line] = await database.read(find_discrepancies())
    assert line.endswith("it is missing where holds name it")
    await database.write(lambda conn: conn.execute(delete(holds)))
    assert len(await database.read(find_discrepancies())) == 2


async def test_concurrent_tasks_get_exactly_what_fits(database: Database) -> None:
    """Of 60 concurrent requests on a budget for 14, exactly 14 are admitted."""
    requests = [_request(run=f"r-{n}") for n in range(60)]
    results = await asyncio.gather(
        *(database.write(hold(request.run_id, request, LIMITS, NOW)) for request in requests)
    )
    admitted = [held for [held] in results if isinstance(held, Hold)]
    assert len(admitted) == 100 // 7
    assert (await _views(database))[-1] == ("user", "acme", "u-1", 0, 98)
    assert await _is_consistent(database)


def test_concurrent_threads_get_exactly_what_fits(database: Database) -> None:
    """Threads that hold and settle until they are refused spend exactly the budget."""

    def spend(lane: int) -> int:
        for n in itertools.count():
            [held] = database.write_now(hold(f"{lane}-{n}", _request(run=f"r-{lane}"), LIMITS, NOW))
            if isinstance(held, Refusal):
                return n
            database.write_now(settle(held, held.amount))
        raise AssertionError("unreachable")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 100 // 7
    assert database.read_now(find_discrepancies()) == []


async def test_concurrent_settling_and_charging(database: Database) -> None:
    """Holds that are settled while their leases expire are booked once, at the real usage."""
    large = Limits(10**6, 10**6, None, None, ZoneInfo("UTC"))
    held = [await _hold(database, _request(run=f"r-{n}", user=f"u-{n}"), limits=large) for n in range(20)]
    used = Amount(NanoUsd(3), 8, 5)
    late = NOW + LEASE
    calls = [database.write(op) for one in held for op in (settle(one, used), charge_expired(late), settle(one, used))]
    results = [result for [result] in await asyncio.gather(*calls)]
    assert [results[n] + results[n + 2] for n in range(0, 60, 3)] == [1] * 20
    assert (await _views(database))[0] == ("tenant", "acme", None, 60, 0)
    assert await _is_consistent(database)


async def test_writes_over_two_days_do_not_deadlock(database: Database) -> None:
    """Concurrent writes that each settle on one day and hold on the next all succeed."""
    held = [await _hold(database, _request(run=f"r-{n}")) for n in range(10)]
    tomorrow = NOW + timedelta(minutes=10)
    calls = [
        database.write(settle(one, Amount()), hold(f"n-{n}", _request(run=f"r-{n}"), LIMITS, tomorrow))
        for n, one in enumerate(held)
    ]
    results = await asyncio.gather(*calls)
    assert [(done, type(again)) for done, again in results] == [(True, Hold)] * 10
    assert await _is_consistent(database)
