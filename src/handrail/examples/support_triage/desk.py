"""The shop's order desk: a small SQLite database, which the agent's tools read and make refunds in."""

import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

Status = Literal["placed", "paid", "shipped", "delivered", "lost", "cancelled", "returned"]

DESK_TODAY = dt.date(2026, 11, 20)
"""The desk's fixed date, so that the refunds that are due stay the same."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS orders (
    number TEXT PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    status TEXT NOT NULL
        CHECK (status IN ('placed', 'paid', 'shipped', 'delivered', 'lost', 'cancelled', 'returned')),
    placed_on TEXT NOT NULL,
    shipped_on TEXT,
    delivered_on TEXT,
    currency TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    order_number TEXT NOT NULL REFERENCES orders (number),
    name TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    unit_cents INTEGER NOT NULL CHECK (unit_cents >= 0)
);
CREATE TABLE IF NOT EXISTS charges (
    id INTEGER PRIMARY KEY,
    order_number TEXT NOT NULL REFERENCES orders (number),
    charged_on TEXT NOT NULL,
    captured_cents INTEGER NOT NULL CHECK (captured_cents >= 0),
    refunded_cents INTEGER NOT NULL DEFAULT 0 CHECK (refunded_cents BETWEEN 0 AND captured_cents)
);
CREATE TABLE IF NOT EXISTS refunds (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    order_number TEXT NOT NULL REFERENCES orders (number),
    cents INTEGER NOT NULL CHECK (cents > 0),
    reason TEXT NOT NULL,
    made_on TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tickets (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    order_number TEXT REFERENCES orders (number),
    summary TEXT NOT NULL,
    opened_on TEXT NOT NULL
);
"""


class DeskError(ValueError):
    """The desk rejected a request; nothing was written."""


class UnknownOrder(DeskError):
    """No order has this number."""


class RefundImpossible(DeskError):
    """The refund is not positive, exceeds what the shop still holds, or reuses the key of another refund."""


class TicketImpossible(DeskError):
    """The ticket reuses the key of another ticket."""


@dataclass(frozen=True)
class Item:
    """One line of an order; the price of one unit in cents."""

    name: str
    quantity: int
    unit_cents: int


@dataclass(frozen=True)
class Order:
    """One order; amounts are cents of `currency` (ISO 4217)."""

    number: str
    customer: str
    status: Status
    placed_on: dt.date
    shipped_on: dt.date | None
    delivered_on: dt.date | None
    currency: str
    items: tuple[Item, ...]

    @property
    def total_cents(self) -> int:
        """What the items cost together."""
        return sum(item.quantity * item.unit_cents for item in self.items)


@dataclass(frozen=True)
class Charge:
    """Money taken for an order; `captured_cents` is 0 while the bank only holds it."""

    id: int
    charged_on: dt.date
    captured_cents: int
    refunded_cents: int
    currency: str

    @property
    def held_cents(self) -> int:
        """What was captured and not refunded."""
        return self.captured_cents - self.refunded_cents


@dataclass(frozen=True)
class Refund:
    """Money that was given back; `key` identifies the request for it."""

    id: int
    key: str
    order: str
    cents: int
    currency: str
    reason: str
    made_on: dt.date


@dataclass(frozen=True)
class Ticket:
    """Work for a colleague; `key` identifies the request for it."""

    id: int
    key: str
    order: str | None
    summary: str
    opened_on: dt.date


def held_cents(charges: Sequence[Charge]) -> int:
    """What the shop still holds of these charges, in cents: the most that it can refund."""
    return sum(charge.held_cents for charge in charges)


def split_refund(charges: Sequence[Charge], cents: int) -> dict[int, int]:
    """Splits a refund over an order's charges, the latest first.

    Args:
        charges: All charges of the order.
        cents: The refund.

    Returns:
        Cents by charge id.

    Raises:
        RefundImpossible: `cents` is not between 1 and what is held.
    """
    held = held_cents(charges)
    if not 0 < cents <= held:
        raise RefundImpossible(f"{cents} cents cannot be refunded: the amount must be between 1 and the {held} held")
    parts: dict[int, int] = {}
    for charge in sorted(charges, key=lambda charge: (charge.charged_on, charge.id), reverse=True):
        part = min(cents, charge.held_cents)
        if part:
            parts[charge.id] = part
        cents -= part
    return parts


class Desk:
    """Orders, charges, refunds and tickets in a SQLite file, or in memory with ":memory:".

    All threads share one connection behind a lock; other processes may open the same file.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all writes of the block, or none."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def find_order(self, number: str) -> Order | None:
        """The order with this number, with or without a leading "#"; None if there is none."""
        number = number.strip().removeprefix("#")
        row = self._rows(
            "SELECT o.number, c.name, o.status, o.placed_on, o.shipped_on, o.delivered_on, o.currency"
            " FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.number = ?",
            number,
        )
        if not row:
            return None
        order_number, customer, status, placed_on, shipped_on, delivered_on, currency = row[0]
        items = self._rows("SELECT name, quantity, unit_cents FROM items WHERE order_number = ? ORDER BY rowid", number)
        return Order(
            number=order_number,
            customer=customer,
            status=status,
            placed_on=dt.date.fromisoformat(placed_on),
            shipped_on=dt.date.fromisoformat(shipped_on) if shipped_on else None,
            delivered_on=dt.date.fromisoformat(delivered_on) if delivered_on else None,
            currency=currency,
            items=tuple(Item(*item) for item in items),
        )

    def list_charges(self, number: str) -> list[Charge]:
        """The order's charges, oldest first. Raises UnknownOrder."""
        order = self._require_order(number)
        rows = self._rows(
            "SELECT id, charged_on, captured_cents, refunded_cents FROM charges WHERE order_number = ?"
            " ORDER BY charged_on, id",
            order.number,
        )
        return [
            Charge(charge_id, dt.date.fromisoformat(day), captured, refunded, order.currency)
            for charge_id, day, captured, refunded in rows
        ]

    def refund(self, number: str, cents: int, reason: str, key: str) -> Refund:
        """Makes a refund. Called again with the same key, it returns the first refund.

        Args:
            number: The order's number.
            cents: The amount, in cents of the order's currency.
            reason: Why it is refunded.
            key: Identifies the request, so that it is refunded once only.

        Raises:
            UnknownOrder: There is no such order.
            RefundImpossible: The shop does not hold that much, or the key belongs to another refund.
        """
        with self.transaction() as connection:
            order = self._require_order(number)
            first = self._refund_with(key)
            if first:
                if (first.order, first.cents) != (order.number, cents):
                    raise RefundImpossible(f"key {key!r} already refunded {first.cents} cents of order {first.order}")
                return first
            for charge_id, part in split_refund(self.list_charges(number), cents).items():
                connection.execute(
                    "UPDATE charges SET refunded_cents = refunded_cents + ? WHERE id = ?", (part, charge_id)
                )
            cursor = connection.execute(
                "INSERT INTO refunds (key, order_number, cents, reason, made_on) VALUES (?, ?, ?, ?, ?)",
                (key, order.number, cents, reason, DESK_TODAY.isoformat()),
            )
            return Refund(_row_id(cursor), key, order.number, cents, order.currency, reason, DESK_TODAY)

    def list_refunds(self) -> list[Refund]:
        """All refunds, oldest first."""
        rows = self._rows("SELECT key FROM refunds ORDER BY id")
        return [refund for (key,) in rows if (refund := self._refund_with(key))]

    def open_ticket(self, number: str | None, summary: str, key: str) -> Ticket:
        """Opens a ticket for a colleague. Called again with the same key, it returns the first ticket.

        Args:
            number: The order's number, if the ticket is about an order.
            summary: What the colleague has to do.
            key: Identifies the request, so that one ticket only is opened.

        Raises:
            UnknownOrder: There is no such order.
            TicketImpossible: The key belongs to a ticket for another order.
        """
        with self.transaction() as connection:
            order = self._require_order(number).number if number is not None else None
            rows = self._rows("SELECT id, order_number, summary, opened_on FROM tickets WHERE key = ?", key)
            if rows:
                ticket_id, first_order, first_summary, opened_on = rows[0]
                first = Ticket(ticket_id, key, first_order, first_summary, dt.date.fromisoformat(opened_on))
                if first.order != order:
                    raise TicketImpossible(f"key {key!r} already opened ticket {first.id} for order {first.order}")
                return first
            cursor = connection.execute(
                "INSERT INTO tickets (key, order_number, summary, opened_on) VALUES (?, ?, ?, ?)",
                (key, order, summary, DESK_TODAY.isoformat()),
            )
            return Ticket(_row_id(cursor), key, order, summary, DESK_TODAY)

    def _require_order(self, number: str) -> Order:
        order = self.find_order(number)
        if order is None:
            raise UnknownOrder(f"the desk has no order {number!r}; check the number with the customer")
        return order

    def _refund_with(self, key: str) -> Refund | None:
        rows = self._rows(
            "SELECT r.id, r.order_number, r.cents, o.currency, r.reason, r.made_on"
            " FROM refunds r JOIN orders o ON o.number = r.order_number WHERE r.key = ?",
            key,
        )
        if not rows:
            return None
        refund_id, order, cents, currency, reason, made_on = rows[0]
        return Refund(refund_id, key, order, cents, currency, reason, dt.date.fromisoformat(made_on))

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def _row_id(cursor: sqlite3.Cursor) -> int:
    if cursor.lastrowid is None:
        raise RuntimeError("SQLite reported no row id after an INSERT")
    return cursor.lastrowid
