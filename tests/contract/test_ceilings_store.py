"""What the ledger promises, whatever the store."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, delete, update

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import Ask, Refusal
from handrail.ceilings.ledger import BATCH, LEASE, Hold, accounts, charge_expired, hold, holds, settle
from handrail.ceilings.ledger_queries import HoldView, audit, load_holds, spending
from handrail.ceilings.limits import Limits
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


def _ask(user: str = "u-1", tenant: str = "acme", run: str = "r-1", output_tokens: int = 20) -> Ask:
    return Ask(run, user, tenant, 10, output_tokens, _price)


async def _hold(database: Database, ask: Ask, now: datetime = NOW, limits: Limits = LIMITS) -> Hold:
    [held] = await database.write(hold(f"h-{next(numbers)}", ask, limits, now))
    assert isinstance(held, Hold)
    return held


async def _views(database: Database, now: datetime = NOW, tenant: str | None = None) -> list[tuple[object, ...]]:
    views = await database.read(lambda conn: spending(conn, tenant=tenant, now=now, limits=LIMITS))
    return [(view.scope, view.tenant, view.user, view.spent.cost, view.held.cost) for view in views]


async def _holds(database: Database, run: str = "r-1") -> list[HoldView]:
    return await database.read(lambda conn: load_holds(conn, run))


async def _right(database: Database) -> bool:
    return await database.read(audit) == []


async def test_a_hold_is_on_three_accounts(database: Database) -> None:
    """What is held shows on the tenant's month and the user's day, and on the run."""
    held = await _hold(database, _ask())
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
    assert await _right(database)


async def test_what_was_really_used_takes_the_place_of_the_hold(database: Database) -> None:
    """After settling nothing is held, and what was used is spent."""
    held = await _hold(database, _ask())
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used)) == [True]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    [found] = await _holds(database)
    assert (found.state, found.settled) == ("settled", used)
    assert await _right(database)


async def test_a_hold_is_settled_once(database: Database) -> None:
    """A second settling, in the same write or a later one, changes nothing and says so."""
    held = await _hold(database, _ask())
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used), settle(held, used + used)) == [True, False]
    assert await database.write(settle(held, Amount())) == [False]
    assert (await _views(database))[0] == ("tenant", "acme", None, 3, 0)


async def test_more_than_was_held_is_booked_as_it_is(database: Database) -> None:
    """A provider that took more than the hold is not hidden: it stands in the books, and the next is refused."""
    held = await _hold(database, _ask())
    await database.write(settle(held, Amount(NanoUsd(2_000), 10, 20)))
    [refusal] = await database.write(hold("next", _ask(), LIMITS, NOW))
    assert isinstance(refusal, Refusal)
    assert (refusal.scope, refusal.limit, refusal.spent, refusal.fits) == ("tenant", 1_200, 2_000, 0)
    assert await _right(database)


async def test_a_refusal_leaves_its_neighbours_alone(database: Database) -> None:
    """A refusal is a value: it writes no hold, and the other operations of its write take place."""
    empty = Limits(1_000, 1_000, NanoUsd(6), None, ZoneInfo("UTC"))
    results = await database.write(enqueue("test", "k", {}, NOW), hold("h", _ask(), empty, NOW))
    assert results[0] is True
    assert isinstance(results[1], Refusal)
    assert await database.write(enqueue("test", "k", {}, NOW)) == [False]
    assert await _holds(database) == []


async def test_a_hold_goes_with_its_write(database: Database) -> None:
    """When the write that a hold is part of fails, nothing is held."""

    def boom(_conn: Connection) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await database.write(hold("h", _ask(), LIMITS, NOW), boom)
    assert await _holds(database) == []
    assert await _views(database) == []


async def test_a_settle_may_ride_with_the_next_hold(database: Database) -> None:
    """What a settle gives back can be held again in the same write."""
    small = Limits(1_000, 20, None, None, ZoneInfo("UTC"))
    held = await _hold(database, _ask(), limits=small)
    settled, again = await database.write(settle(held, Amount(NanoUsd(1), 5, 12)), hold("again", _ask(), small, NOW))
    assert settled is True
    assert isinstance(again, Hold)
    assert again.output_tokens == 8


async def test_a_new_day_and_month_begin_empty(database: Database) -> None:
    """After midnight accounts are new, and what was held before it is settled where it was held."""
    held = await _hold(database, _ask())
    tomorrow = NOW + timedelta(minutes=10)
    assert await _views(database, tomorrow) == []
    await _hold(database, _ask(), tomorrow)
    await database.write(settle(held, Amount(NanoUsd(3), 8, 5)))
    assert await _views(database, tomorrow) == [("tenant", "acme", None, 0, 7), ("user", "acme", "u-1", 0, 7)]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    assert await _right(database)


async def test_a_run_does_not_begin_again_at_midnight(database: Database) -> None:
    """A run's tokens are counted over all its requests, whatever the day."""
    small = Limits(1_000, 30, None, None, ZoneInfo("UTC"))
    await _hold(database, _ask(), limits=small)
    later = await _hold(database, _ask(), NOW + timedelta(minutes=20), small)
    assert later.output_tokens == 10


async def test_an_expired_hold_is_charged(database: Database) -> None:
    """From the end of its lease on, and not before, a hold that nobody settled is spent as it was held, once."""
    await _hold(database, _ask())
    assert await database.write(charge_expired(NOW + LEASE - timedelta(microseconds=1))) == [0]
    assert await database.write(charge_expired(NOW + LEASE), charge_expired(NOW + LEASE)) == [1, 0]
    assert await _views(database) == [("tenant", "acme", None, 7, 0), ("user", "acme", "u-1", 7, 0)]
    [found] = await _holds(database)
    assert (found.state, found.settled) == ("charged", found.held)
    assert await _right(database)


async def test_a_late_answer_corrects_a_charge(database: Database) -> None:
    """A hold that was charged is settled at what was used when the answer comes after all, once."""
    held = await _hold(database, _ask())
    await database.write(charge_expired(NOW + LEASE))
    used = Amount(NanoUsd(3), 8, 5)
    assert await database.write(settle(held, used), settle(held, used)) == [True, False]
    assert await _views(database) == [("tenant", "acme", None, 3, 0), ("user", "acme", "u-1", 3, 0)]
    assert await _right(database)


async def test_expired_holds_are_charged_in_batches(database: Database) -> None:
    """More expired holds than a batch take more than one call, those overdue longest first."""
    roomy = Limits(10**6, 10**6, None, None, ZoneInfo("UTC"))
    many = [hold(f"b-{n}", _ask(), roomy, NOW + timedelta(seconds=n)) for n in range(BATCH + 1)]
    await database.write(*many)
    late = NOW + 2 * LEASE
    assert await database.write(charge_expired(late)) == [BATCH]
    assert [each.hold_id for each in await _holds(database) if each.state == "held"] == [f"b-{BATCH}"]
    assert await database.write(charge_expired(late)) == [1]
    assert await _right(database)


ALIKE = [
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
"""Tenants and users that are not the same."""


async def test_two_names_have_two_accounts(database: Database) -> None:
    """However alike two tenants and their users look, what one spends is not the other's."""
    for tenant, user in ALIKE:
        await _hold(database, _ask(user, tenant))
    views = await _views(database)
    users = [(tenant, user, held) for scope, tenant, user, _, held in views if scope == "user"]
    assert sorted(users, key=str) == sorted(((*pair, 7) for pair in ALIKE), key=str)
    tenants = {tenant: held for scope, tenant, _, _, held in views if scope == "tenant"}
    assert tenants == {name: 7 * sum(tenant == name for tenant, _ in ALIKE) for name, _ in ALIKE}
    assert await _right(database)


async def test_names_of_200_characters_fit(database: Database) -> None:
    """The longest names that a run may have, of the widest characters, have accounts."""
    await _hold(database, _ask(user="\U0001f600" * 200, tenant="\U0001f601" * 200))
    assert len(await _views(database)) == 2


async def test_the_fullest_accounts_come_first(database: Database) -> None:
    """Spending lists by what is spent and held, only what a tenant may see, and at most what was asked for."""
    for user, times in (("u-1", 1), ("u-2", 3), ("u-3", 2)):
        for _ in range(times):
            await _hold(database, _ask(user))
    await _hold(database, _ask(tenant="other"))
    assert [view[2] for view in await _views(database, tenant="acme")] == [None, "u-2", "u-3", "u-1"]
    assert len(await _views(database)) == 6
    first = await database.read(lambda conn: spending(conn, tenant=None, now=NOW, limits=LIMITS, limit=1))
    assert [(each.window, each.limit, each.cutoff) for each in first] == [(MARCH, 1_000, 1_200)]
    both = await database.read(lambda conn: spending(conn, tenant="other", now=NOW, limits=LIMITS))
    assert [(each.window, each.limit, each.cutoff) for each in both] == [(MARCH, 1_000, 1_200), (TODAY, 100, 100)]


async def test_the_audit_finds_an_account_that_is_wrong(database: Database) -> None:
    """An account whose sum was changed, one that is missing, and one that no hold explains are each named."""
    await _hold(database, _ask())
    await database.write(
        lambda conn: conn.execute(update(accounts).where(accounts.c.scope == "user").values(held_cost=8))
    )
    [line] = await database.read(audit)
    assert '"user"' in line
    assert "held_cost is 8 where its holds sum to 7" in line
    await database.write(lambda conn: conn.execute(delete(accounts).where(accounts.c.scope == "user")))
    [line] = await database.read(audit)
    assert line.endswith("it is missing where holds name it")
    await database.write(lambda conn: conn.execute(delete(holds)))
    assert len(await database.read(audit)) == 2


async def test_tasks_at_once_get_what_fits_and_no_more(database: Database) -> None:
    """Of 60 requests at once on a budget for 14, exactly 14 are admitted, whichever they are."""
    asks = [_ask(run=f"r-{n}") for n in range(60)]
    results = await asyncio.gather(*(database.write(hold(ask.run_id, ask, LIMITS, NOW)) for ask in asks))
    admitted = [held for [held] in results if isinstance(held, Hold)]
    assert len(admitted) == 100 // 7
    assert (await _views(database))[-1] == ("user", "acme", "u-1", 0, 98)
    assert await _right(database)


def test_threads_at_once_get_what_fits_and_no_more(database: Database) -> None:
    """Threads that hold and settle what they held, until they are refused, spend the budget and no more."""

    def spend(lane: int) -> int:
        for n in itertools.count():
            [held] = database.write_now(hold(f"{lane}-{n}", _ask(run=f"r-{lane}"), LIMITS, NOW))
            if isinstance(held, Refusal):
                return n
            database.write_now(settle(held, held.amount))
        raise AssertionError("unreachable")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 100 // 7
    assert database.read_now(audit) == []


async def test_settling_and_charging_at_once_books_each_hold_once(database: Database) -> None:
    """Answers that come just when their leases run out are booked once, at what was used."""
    roomy = Limits(10**6, 10**6, None, None, ZoneInfo("UTC"))
    held = [await _hold(database, _ask(run=f"r-{n}", user=f"u-{n}"), limits=roomy) for n in range(20)]
    used = Amount(NanoUsd(3), 8, 5)
    late = NOW + LEASE
    calls = [
        database.write(op) for each in held for op in (settle(each, used), charge_expired(late), settle(each, used))
    ]
    results = [result for [result] in await asyncio.gather(*calls)]
    assert [results[n] + results[n + 2] for n in range(0, 60, 3)] == [1] * 20
    assert (await _views(database))[0] == ("tenant", "acme", None, 60, 0)
    assert await _right(database)


async def test_tenants_and_days_in_one_write_do_not_block_each_other(database: Database) -> None:
    """Many writes at once, each settling on one day and holding on the next, all get through."""
    held = [await _hold(database, _ask(run=f"r-{n}")) for n in range(10)]
    tomorrow = NOW + timedelta(minutes=10)
    calls = [
        database.write(settle(each, Amount()), hold(f"n-{n}", _ask(run=f"r-{n}"), LIMITS, tomorrow))
        for n, each in enumerate(held)
    ]
    results = await asyncio.gather(*calls)
    assert [(done, type(again)) for done, again in results] == [(True, Hold)] * 10
    assert await _right(database)
