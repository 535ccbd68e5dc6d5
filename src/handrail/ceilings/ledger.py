"""The ledger: accounts, the holds on them, and the operations that keep both in step.

    [held] = await db.write(hold(hold_id, request, limits, now))    # before a request: Hold or Refusal
    await db.write(settle(held, used), ...)                         # after it, at what it really cost

A hold is on three accounts, the tenant's month, the user's day and the run, and is moved on all of them or on none. At
every commit an account's sums are those of its holds; `find_discrepancies` checks it.

What is held counts like what is spent. If only spending counted, a hundred requests that are all under way could each
find room below the ceiling, and together pass it. A hold is the most that its request may cost, so whatever the
requests under way turn out to cost, settling them can only lower what an account has taken.

A hold that nobody settles would keep its amount for good. So it has a lease, after which it is charged: the process
that made it is gone, and its request may well have been answered and billed. If the process is alive after all, its
late settlement corrects the charge.

Each request locks the tenant's account before anything else of the tenant. Requests of one tenant therefore decide one
after the other, each seeing what the ones before it hold, and two of them can never wait for each other. On SQLite the
writer's transaction excludes all others, which does the same. An account is of the window that its hold was made in:
a request that is held before midnight and settled after it is booked on the day of the hold.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, select, update

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.money import NanoUsd

from .amounts import NOTHING, Amount
from .decision import Account, HoldRequest, Refusal, decide_hold
from .limits import CeilingScope, Limits
from .tables import accounts, holds
from .windows import Window, windows_of

LEASE = timedelta(minutes=15)
"""How long a hold waits to be settled before it is charged. Generous, since held and charged count the same."""
BATCH = 100
"""The most holds that one `charge_expired` charges, so that it does not keep others from writing."""

# The statements of every model request are built once, with parameters for all that varies: SQLAlchemy derives a cache
# key for each statement object, and rendering one costs more than SQLite takes to run it. A hold is always on three
# accounts, so their keys are three parameters rather than a list whose length would have to be rendered each time.
_KEYS = ("tenant_key", "user_key", "run_key")
_SUMS = tuple(name for name in accounts.c.keys() if name.startswith(("spent_", "held_")))  # noqa: SIM118
_OF_HOLD = accounts.c.key.in_([bindparam(name) for name in _KEYS])
# Postgres locks rows in the order of the result, so the tenant's account is locked first.
_LOCK_ORDER = case({"tenant": 0, "user": 1}, value=accounts.c.scope, else_=2)
_LOCK_ACCOUNTS = (
    select(accounts.c.key, *(accounts.c[name] for name in _SUMS))
    .where(_OF_HOLD)
    .order_by(_LOCK_ORDER)
    .with_for_update()
)
_LOCK_TENANT = select(accounts.c.key).where(accounts.c.key == bindparam("tenant_account")).with_for_update()
_BOOK = update(accounts).where(_OF_HOLD).values({name: accounts.c[name] + bindparam(f"more_{name}") for name in _SUMS})
_INSERT_HOLD = holds.insert()
# The state is part of the condition, so of two that close the same hold only one does.
_CLOSE_HOLD = (
    update(holds)
    .where(holds.c.hold_id == bindparam("closed_hold"), holds.c.state == bindparam("from_state"))
    .values(
        state=bindparam("to_state"),
        settled_cost=bindparam("used_cost"),
        settled_input_tokens=bindparam("used_input_tokens"),
        settled_output_tokens=bindparam("used_output_tokens"),
    )
)
_EXPIRED = (
    select(holds)
    .where(holds.c.state == "held", holds.c.lease_until <= bindparam("now"))
    .order_by(holds.c.lease_until)
    .limit(BATCH)
)


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount set aside for one model request, on the accounts with these keys, the tenant's first."""

    hold_id: str
    amount: Amount
    accounts: tuple[str, ...]

    @property
    def output_tokens(self) -> int:
        """What the request's maximum of output tokens has to be set to: no more is held."""
        return self.amount.output_tokens


@dataclass(frozen=True, slots=True)
class ChargedHold:
    """A hold whose lease ran out, and which was charged: its request may have been answered and billed."""

    hold_id: str
    run_id: str
    tenant: str
    amount: Amount


def hold(hold_id: str, request: HoldRequest, limits: Limits, now: datetime) -> Operation[Hold | Refusal]:
    """Holds the most that a model request may come to.

    Args:
        hold_id: The id of the new hold.
        request: Whose request it is, and how large.
        limits: The ceilings in force.
        now: The time, which decides the windows, and from which the hold's lease counts.

    Returns:
        An operation that returns the hold, or which ceiling refuses it; in that case no hold is written.
    """
    windows = windows_of(now, limits.time_zone)
    account_rows = _account_rows(request, windows)
    hold_row = {
        "hold_id": hold_id,
        "run_id": request.run_id,
        "tenant": request.tenant,
        "user": request.user,
        **{f"{row['scope']}_account": row["key"] for row in account_rows},
        "made_at": now,
        "lease_until": now + LEASE,
        "state": "held",
    }
    return _hold(request, limits, windows, account_rows, hold_row)


@operation
def _hold(
    conn: Connection,
    request: HoldRequest,
    limits: Limits,
    windows: Mapping[CeilingScope, Window],
    account_rows: Sequence[Mapping[str, Any]],
    hold_row: Mapping[str, Any],
) -> Hold | Refusal:
    decision = decide_hold(request, _lock_accounts(conn, account_rows), limits, windows)
    if isinstance(decision, Refusal):
        return decision
    keys = tuple(row["key"] for row in account_rows)
    conn.execute(_INSERT_HOLD, {**hold_row, **_columns("held", decision)})
    _book(conn, keys, spent=NOTHING, held=decision)
    return Hold(hold_row["hold_id"], decision, keys)


@operation
def settle(conn: Connection, held: Hold, used: Amount) -> bool:
    """Books what a request really used in place of its hold; returns False, and changes nothing, if that was done.

    What was used is booked as it is, also above the hold. A hold that was charged meanwhile is corrected.
    """
    _lock_tenant(conn, held.accounts[0])
    return _settle_held(conn, held, used) or _settle_charged(conn, held, used)


def _settle_held(conn: Connection, held: Hold, used: Amount) -> bool:
    if not _close_hold(conn, held.hold_id, "held", "settled", used):
        return False
    _book(conn, held.accounts, spent=used, held=NOTHING - held.amount)
    return True


def _settle_charged(conn: Connection, held: Hold, used: Amount) -> bool:
    if not _close_hold(conn, held.hold_id, "charged", "settled", used):
        return False
    _book(conn, held.accounts, spent=used - held.amount, held=NOTHING)
    return True


@operation
def charge_expired(conn: Connection, now: datetime) -> list[ChargedHold]:
    """Charges holds whose lease ran out, and returns them.

    It takes up to BATCH of them, those overdue longest first: call it again while it returns that many.
    """
    expired = conn.execute(_EXPIRED, {"now": now}).all()
    # In one order, so that two processes that charge at the same time cannot wait for each other. Which of the holds
    # are still held is decided after that, by the condition in _CLOSE_HOLD.
    for tenant_account in sorted({row.tenant_account for row in expired}):
        _lock_tenant(conn, tenant_account)
    return [
        ChargedHold(row.hold_id, row.run_id, row.tenant, _held_amount(row)) for row in expired if _charge(conn, row)
    ]


def _charge(conn: Connection, row: Row[Any]) -> bool:
    amount = _held_amount(row)
    if not _close_hold(conn, row.hold_id, "held", "charged", amount):
        return False
    _book(conn, (row.tenant_account, row.user_account, row.run_account), spent=amount, held=NOTHING - amount)
    return True


def _lock_tenant(conn: Connection, tenant_account: str) -> None:
    # Needed before an UPDATE of several accounts, which locks them in whatever order it finds them.
    if conn.dialect.name != "sqlite":
        conn.execute(_LOCK_TENANT, {"tenant_account": tenant_account})


def _close_hold(conn: Connection, hold_id: str, from_state: str, to_state: str, used: Amount) -> bool:
    """Moves a hold from one state to the next; False if it was not in the first."""
    step = {"closed_hold": hold_id, "from_state": from_state, "to_state": to_state}
    return conn.execute(_CLOSE_HOLD, {**step, **_columns("used", used)}).rowcount == 1


def _book(conn: Connection, keys: Sequence[str], spent: Amount, held: Amount) -> None:
    """Adds to the sums of a hold's accounts; negative amounts take away."""
    added = {**_columns("more_spent", spent), **_columns("more_held", held)}
    conn.execute(_BOOK, {**_key_parameters(keys), **added})


def _account_rows(request: HoldRequest, windows: Mapping[CeilingScope, Window]) -> list[dict[str, Any]]:
    """The accounts that a request is booked on, empty, in the order in which they are locked."""
    scopes: tuple[CeilingScope, ...] = ("tenant", "user", "run")
    names: Mapping[CeilingScope, tuple[str, ...]] = {
        "tenant": (request.tenant,),
        "user": (request.tenant, request.user),
        "run": (request.tenant, request.run_id),
    }
    return [
        {
            # As JSON, because whatever characters the names have, no two lists of names have the same text.
            "key": json.dumps([scope, unix_ns(windows[scope].start), *names[scope]], ensure_ascii=False),
            "scope": scope,
            "tenant": request.tenant,
            "user": None if scope == "tenant" else request.user,
            "starts_at": windows[scope].start,
            "ends_at": windows[scope].end,
            **_columns("spent", NOTHING),
            **_columns("held", NOTHING),
        }
        for scope in scopes
    ]


def _lock_accounts(conn: Connection, account_rows: Sequence[Mapping[str, Any]]) -> Mapping[CeilingScope, Account]:
    """The accounts of these rows, locked; those that are missing are inserted, which locks them too."""
    keys = [row["key"] for row in account_rows]
    by_key = _load_accounts(conn, keys)
    for row in account_rows:
        if row["key"] in by_key:
            continue
        if insert_new(conn, accounts, row):
            by_key[row["key"]] = Account()
        else:
            # Another transaction inserted it between the two statements; the insert waited for its commit.
            by_key = _load_accounts(conn, keys)
    return {row["scope"]: by_key[row["key"]] for row in account_rows}


def _load_accounts(conn: Connection, keys: Sequence[str]) -> dict[str, Account]:
    return {row.key: account_from_row(row) for row in conn.execute(_LOCK_ACCOUNTS, _key_parameters(keys))}


def _key_parameters(keys: Sequence[str]) -> dict[str, str]:
    return dict(zip(_KEYS, keys, strict=True))


def account_from_row(row: Row[Any]) -> Account:
    """What is booked on an account, by the names of its columns."""
    return Account(
        spent=Amount(NanoUsd(row.spent_cost), row.spent_input_tokens, row.spent_output_tokens),
        held=_held_amount(row),
    )


def _held_amount(row: Row[Any]) -> Amount:
    return Amount(NanoUsd(row.held_cost), row.held_input_tokens, row.held_output_tokens)


def _columns(side: str, amount: Amount) -> dict[str, int]:
    return {
        f"{side}_cost": amount.cost,
        f"{side}_input_tokens": amount.input_tokens,
        f"{side}_output_tokens": amount.output_tokens,
    }
