"""The ledger: accounts, the holds on them, and the operations that keep both in step.

    held, = await db.write(hold(hold_id, ask, limits, now))       # before a request: Hold or Refusal
    await db.write(settle(held, used), ...)                       # after it, at what it really cost

A hold is on three accounts, the tenant's month, the user's day and the run, and is moved on all of them or on none. The
sums in an account are those of its holds at every commit; `audit` proves it.

On Postgres the tenant's account is locked before anything else of the tenant is touched, so that requests of one tenant
decide one after the other and cannot deadlock. On SQLite the writer's transaction does the same.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Row,
    String,
    Table,
    bindparam,
    case,
    select,
    update,
)

from handrail.kernel.clock import unix_ns
from handrail.kernel.db.engine import insert_new
from handrail.kernel.db.schema import metadata
from handrail.kernel.money import NanoUsd

from .amounts import NOTHING, Amount
from .decision import Account, Ask, Refusal, decide
from .limits import Limits, Scope
from .windows import Window, windows_of

accounts = Table(
    "accounts",
    metadata,
    Column("key", String, primary_key=True),
    Column("scope", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String),
    Column("starts_ns", BigInteger, nullable=False),
    Column("ends_ns", BigInteger),
    Column("spent_cost", BigInteger, nullable=False),
    Column("spent_input_tokens", BigInteger, nullable=False),
    Column("spent_output_tokens", BigInteger, nullable=False),
    Column("held_cost", BigInteger, nullable=False),
    Column("held_input_tokens", BigInteger, nullable=False),
    Column("held_output_tokens", BigInteger, nullable=False),
    Index("ix_accounts_scope_starts_ns", "scope", "starts_ns"),
)
holds = Table(
    "holds",
    metadata,
    Column("hold_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("tenant_account", String, nullable=False),
    Column("user_account", String, nullable=False),
    Column("run_account", String, nullable=False),
    Column("held_cost", BigInteger, nullable=False),
    Column("held_input_tokens", BigInteger, nullable=False),
    Column("held_output_tokens", BigInteger, nullable=False),
    Column("settled_cost", BigInteger),
    Column("settled_input_tokens", BigInteger),
    Column("settled_output_tokens", BigInteger),
    Column("made_ns", BigInteger, nullable=False),
    Column("lease_until_ns", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Index("ix_holds_run_id", "run_id"),
    Index("ix_holds_state_lease_until_ns", "state", "lease_until_ns"),
)

LEASE = timedelta(minutes=15)
"""How long a hold waits to be settled before it is charged. Generous: held or charged counts the same in a decision."""
BATCH = 100
"""The most holds that one `charge_expired` charges, so that it does not keep others from writing."""

_LOCK_ORDER = case({"tenant": 0, "user": 1}, value=accounts.c.scope, else_=2)
# A hold is always on three accounts. Where their number is fixed, a statement is written out once and not every time.
_KEYS = ("tenant_key", "user_key", "run_key")
_THREE = accounts.c.key.in_([bindparam(name) for name in _KEYS])
_ACCOUNTS = select(accounts).where(_THREE).order_by(_LOCK_ORDER).with_for_update()
_OPEN = holds.insert()
_LOCK_TENANT = select(accounts.c.key).where(accounts.c.key == bindparam("tenant_account")).with_for_update()
_EXPIRED = (
    select(holds)
    .where(holds.c.state == "held", holds.c.lease_until_ns <= bindparam("now_ns"))
    .order_by(holds.c.lease_until_ns)
    .limit(BATCH)
)
_BOOK = (
    update(accounts)
    .where(_THREE)
    .values(
        {
            name: accounts.c[name] + bindparam(f"more_{name}")
            for name in accounts.c.keys()  # noqa: SIM118 - a collection of columns is no mapping
            if name.startswith(("spent_", "held_"))
        }
    )
)
_CLOSE = (
    update(holds)
    .where(holds.c.hold_id == bindparam("of_hold"), holds.c.state == bindparam("from_state"))
    .values(
        state=bindparam("to_state"),
        settled_cost=bindparam("used_cost"),
        settled_input_tokens=bindparam("used_input_tokens"),
        settled_output_tokens=bindparam("used_output_tokens"),
    )
)


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount set aside for one request, on the accounts with these keys, the tenant's first."""

    hold_id: str
    amount: Amount
    accounts: tuple[str, ...]

    @property
    def output_tokens(self) -> int:
        """What the request's maximum has to be forced to: more was not held."""
        return self.amount.output_tokens


def hold(hold_id: str, ask: Ask, limits: Limits, now: datetime) -> Callable[[Connection], Hold | Refusal]:
    """An op that holds the most that `ask` may come to, or says which ceiling refuses it and writes no hold."""
    windows = windows_of(now, limits.time_zone)
    rows = _account_rows(ask, windows)
    keys = tuple(row["key"] for row in rows)
    opened = {
        "hold_id": hold_id,
        "run_id": ask.run_id,
        "tenant": ask.tenant,
        "user_id": ask.user,
        "tenant_account": keys[0],
        "user_account": keys[1],
        "run_account": keys[2],
        "made_ns": unix_ns(now),
        "lease_until_ns": unix_ns(now + LEASE),
        "state": "held",
    }

    def op(conn: Connection) -> Hold | Refusal:
        decided = decide(ask, _locked(conn, rows), limits, windows)
        if isinstance(decided, Refusal):
            return decided
        conn.execute(_OPEN, {**opened, **_columns("held", decided)})
        _book(conn, keys, spent=NOTHING, held=decided)
        return Hold(hold_id, decided, keys)

    return op


def settle(held: Hold, used: Amount) -> Callable[[Connection], bool]:
    """An op that books what a request really used in place of its hold; False, and nothing changed, if that was done.

    What was used is booked as it is, also above the hold. A hold that was charged meanwhile is corrected.
    """

    def op(conn: Connection) -> bool:
        _lock(conn, held.accounts[0])
        return _settle_held(conn, held, used) or _settle_charged(conn, held, used)

    return op


def _settle_held(conn: Connection, held: Hold, used: Amount) -> bool:
    if not _close(conn, held.hold_id, "held", "settled", used):
        return False
    _book(conn, held.accounts, spent=used, held=NOTHING - held.amount)
    return True


def _settle_charged(conn: Connection, held: Hold, used: Amount) -> bool:
    if not _close(conn, held.hold_id, "charged", "settled", used):
        return False
    _book(conn, held.accounts, spent=used - held.amount, held=NOTHING)
    return True


def charge_expired(now: datetime) -> Callable[[Connection], int]:
    """An op that charges holds whose lease ran out, since their requests may have been answered, and says how many.

    It takes up to BATCH of them, those overdue longest first: call it again while it gives that many.
    """
    now_ns = unix_ns(now)

    def op(conn: Connection) -> int:
        expired = [_held(row) for row in conn.execute(_EXPIRED, {"now_ns": now_ns})]
        for tenant_account in sorted({each.accounts[0] for each in expired}):
            _lock(conn, tenant_account)
        return sum(_charge(conn, each) for each in expired)

    return op


def _charge(conn: Connection, held: Hold) -> bool:
    if not _close(conn, held.hold_id, "held", "charged", held.amount):
        return False
    _book(conn, held.accounts, spent=held.amount, held=NOTHING - held.amount)
    return True


def _lock(conn: Connection, tenant_account: str) -> None:
    if conn.dialect.name != "sqlite":
        conn.execute(_LOCK_TENANT, {"tenant_account": tenant_account})


def _close(conn: Connection, hold_id: str, from_state: str, to_state: str, used: Amount) -> bool:
    """Takes a hold from one state to the next; False if it was not in the first."""
    step = {"of_hold": hold_id, "from_state": from_state, "to_state": to_state}
    return conn.execute(_CLOSE, {**step, **_columns("used", used)}).rowcount == 1


def _book(conn: Connection, keys: Sequence[str], spent: Amount, held: Amount) -> None:
    more = {**_columns("more_spent", spent), **_columns("more_held", held)}
    conn.execute(_BOOK, {**_three(keys), **more})


def _account_rows(ask: Ask, windows: Mapping[Scope, Window]) -> list[dict[str, Any]]:
    """The accounts that `ask` is booked on, empty, in the order in which they are locked."""
    scopes: tuple[Scope, ...] = ("tenant", "user", "run")
    names: Mapping[Scope, tuple[str, ...]] = {
        "tenant": (ask.tenant,),
        "user": (ask.tenant, ask.user),
        "run": (ask.tenant, ask.run_id),
    }
    return [
        {
            # As JSON, because whatever characters the names have, no two lists of names read the same.
            "key": json.dumps([scope, unix_ns(windows[scope].start), *names[scope]], ensure_ascii=False),
            "scope": scope,
            "tenant": ask.tenant,
            "user_id": None if scope == "tenant" else ask.user,
            "starts_ns": unix_ns(windows[scope].start),
            "ends_ns": _ends_ns(windows[scope]),
            **_columns("spent", NOTHING),
            **_columns("held", NOTHING),
        }
        for scope in scopes
    ]


def _ends_ns(window: Window) -> int | None:
    return None if window.end is None else unix_ns(window.end)


def _locked(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> Mapping[Scope, Account]:
    """The accounts of `rows`, locked, those that were missing made."""
    keys = [row["key"] for row in rows]
    found = _load(conn, keys)
    for row in rows:
        if row["key"] in found:
            continue
        if insert_new(conn, accounts, row):
            found[row["key"]] = Account()
        else:
            # Another transaction made it between our two statements.
            found = _load(conn, keys)
    return {row["scope"]: found[row["key"]] for row in rows}


def _load(conn: Connection, keys: Sequence[str]) -> dict[str, Account]:
    return {row.key: account_of(row) for row in conn.execute(_ACCOUNTS, _three(keys))}


def _three(keys: Sequence[str]) -> dict[str, str]:
    return dict(zip(_KEYS, keys, strict=True))


def account_of(row: Row[Any]) -> Account:
    return Account(
        spent=Amount(NanoUsd(row.spent_cost), row.spent_input_tokens, row.spent_output_tokens),
        held=Amount(NanoUsd(row.held_cost), row.held_input_tokens, row.held_output_tokens),
    )


def _held(row: Row[Any]) -> Hold:
    amount = Amount(NanoUsd(row.held_cost), row.held_input_tokens, row.held_output_tokens)
    return Hold(row.hold_id, amount, (row.tenant_account, row.user_account, row.run_account))


def _columns(side: str, amount: Amount) -> dict[str, int]:
    return {
        f"{side}_cost": amount.cost,
        f"{side}_input_tokens": amount.input_tokens,
        f"{side}_output_tokens": amount.output_tokens,
    }
