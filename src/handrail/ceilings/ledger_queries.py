"""Reading the ledger: what is spent now, the holds of a run, and whether accounts and holds agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, or_, select, union_all

from handrail.kernel.db.operation import operation
from handrail.kernel.db.rows import from_row
from handrail.kernel.money import NanoUsd

from .amounts import Amount
from .ledger import account_from_row
from .limits import Limits, MoneyScope
from .tables import accounts, holds
from .windows import Window, windows_of

_SUMS = tuple(name for name in accounts.c.keys() if name.startswith(("spent_", "held_")))  # noqa: SIM118


@dataclass(frozen=True, kw_only=True)
class AccountView:
    """A user's day or a tenant's month as it stands; no `limit` and no `cutoff` where there is no ceiling.

    `limit` is the budget, `cutoff` where it stops, both in nano-dollars. A tenant's account has no user.
    """

    scope: MoneyScope
    tenant: str
    user: str | None
    window: Window
    spent: Amount
    held: Amount
    limit: NanoUsd | None
    cutoff: NanoUsd | None


@dataclass(frozen=True, kw_only=True)
class HoldView:
    """A hold as it stands. `settled` is what was booked in its place: the real use, or the hold if charged."""

    hold_id: str
    run_id: str
    tenant: str
    user: str
    state: Literal["held", "settled", "charged"]
    held: Amount
    settled: Amount | None
    made_at: datetime
    lease_until: datetime


@operation
def load_spending(
    conn: Connection, *, tenant: str | None, now: datetime, limits: Limits, limit: int = 100
) -> list[AccountView]:
    """The accounts of the current days and months, those with most spent and held first.

    Args:
        conn: The connection to read with.
        tenant: Whose accounts; None for those of every tenant.
        now: The time, which decides the windows.
        limits: The ceilings in force.
        limit: The most accounts to return.
    """
    windows = windows_of(now, limits.time_zone)
    scopes: tuple[MoneyScope, ...] = ("user", "tenant")
    current = (and_(accounts.c.scope == scope, accounts.c.starts_at == windows[scope].start) for scope in scopes)
    query = (
        select(accounts)
        .where(or_(*current))
        .order_by((accounts.c.spent_cost + accounts.c.held_cost).desc(), accounts.c.key)
        .limit(limit)
    )
    if tenant is not None:
        query = query.where(accounts.c.tenant == tenant)
    return [_account_view(row, windows[row.scope], limits) for row in conn.execute(query)]


@operation
def load_holds(conn: Connection, run_id: str) -> list[HoldView]:
    """A run's holds, in the order they were made."""
    query = select(holds).where(holds.c.run_id == run_id).order_by(holds.c.made_at, holds.c.hold_id)
    return [_hold_view(row) for row in conn.execute(query)]


@operation
def find_discrepancies(conn: Connection) -> list[str]:
    """A line for every account whose sums are not those of its holds; none if the ledger is consistent."""
    return list(_discrepancies(conn))


def _discrepancies(conn: Connection) -> Iterator[str]:
    summed = _summed_holds().subquery()
    query = (
        select(accounts.c.key, *(accounts.c[name] for name in _SUMS), *(_or_zero(summed.c[name]) for name in _SUMS))
        .select_from(accounts.outerjoin(summed, accounts.c.key == summed.c.key))
        .where(or_(*(accounts.c[name] != _or_zero(summed.c[name]) for name in _SUMS)))
        .order_by(accounts.c.key)
    )
    for key, *sums in conn.execute(query):
        of_account, of_holds = sums[: len(_SUMS)], sums[len(_SUMS) :]
        differences = [
            f"{name} is {booked} where its holds sum to {expected}"
            for name, booked, expected in zip(_SUMS, of_account, of_holds, strict=True)
            if booked != expected
        ]
        yield f"account {key}: {', '.join(differences)}"
    missing = select(summed.c.key).where(summed.c.key.not_in(select(accounts.c.key))).order_by(summed.c.key)
    for key in conn.execute(missing).scalars():
        yield f"account {key}: it is missing where holds name it"


def _summed_holds() -> Select[Any]:
    """What each account should have: one row for each key that a hold names."""
    units = ("cost", "input_tokens", "output_tokens")
    booked = union_all(
        *(
            select(
                account.label("key"),
                *(func.coalesce(holds.c[f"settled_{unit}"], 0).label(f"spent_{unit}") for unit in units),
                *(_while_held(unit) for unit in units),
            )
            for account in (holds.c.tenant_account, holds.c.user_account, holds.c.run_account)
        )
    ).subquery()
    return select(booked.c.key, *(func.sum(booked.c[name]).label(name) for name in _SUMS)).group_by(booked.c.key)


def _or_zero(column: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(column, 0)


def _while_held(unit: str) -> ColumnElement[int]:
    return case((holds.c.state == "held", holds.c[f"held_{unit}"]), else_=0).label(f"held_{unit}")


def _account_view(row: Row[Any], window: Window, limits: Limits) -> AccountView:
    account = account_from_row(row)
    return from_row(
        AccountView,
        row,
        window=window,
        spent=account.spent,
        held=account.held,
        limit=limits.budget(row.scope),
        cutoff=limits.cutoff(row.scope),
    )


def _hold_view(row: Row[Any]) -> HoldView:
    settled = None if row.state == "held" else _amount(row, "settled")
    return from_row(HoldView, row, held=_amount(row, "held"), settled=settled)


def _amount(row: Row[Any], side: Literal["held", "settled"]) -> Amount:
    columns = row._mapping  # noqa: SLF001 - SQLAlchemy's public access by name
    return Amount(columns[f"{side}_cost"], columns[f"{side}_input_tokens"], columns[f"{side}_output_tokens"])
