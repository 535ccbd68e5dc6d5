"""The order desk: its seed data, refunds and tickets."""

import datetime as dt
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.examples.support_triage.desk import (
    Charge,
    Desk,
    DeskError,
    RefundImpossible,
    TicketImpossible,
    UnknownOrder,
    held_cents,
    split_refund,
)
from handrail.examples.support_triage.seed import CUSTOMERS, ORDERS, create_desk

DAY = dt.date(2026, 11, 1)


@st.composite
def charge_lists(draw: st.DrawFn) -> list[Charge]:
    charges = []
    for number in range(draw(st.integers(0, 4))):
        captured = draw(st.integers(0, 500))
        refunded = draw(st.integers(0, captured))
        day = DAY + dt.timedelta(days=draw(st.integers(0, 3)))
        charges.append(Charge(number, day, captured, refunded, "EUR"))
    return charges


@given(charge_lists(), st.integers(-10, 2500))
def test_a_refund_is_split_exactly_or_refused(charges: list[Charge], cents: int) -> None:
    """The parts add up to the refund and none exceeds its charge; a refund above the held amount is refused."""
    if not 0 < cents <= held_cents(charges):
        with pytest.raises(RefundImpossible):
            split_refund(charges, cents)
        return
    parts = split_refund(charges, cents)
    held = {charge.id: charge.held_cents for charge in charges}
    assert sum(parts.values()) == cents
    assert all(0 < part <= held[number] for number, part in parts.items())


def test_a_refund_takes_the_latest_charge_first() -> None:
    """The later of two equal charges is refunded first."""
    charges = [Charge(1, DAY, 500, 0, "EUR"), Charge(2, DAY + dt.timedelta(days=1), 500, 0, "EUR")]
    assert split_refund(charges, 500) == {2: 500}
    assert split_refund(charges, 600) == {2: 500, 1: 100}


@given(st.lists(st.tuples(st.integers(-100, 9000), st.integers(0, 3)), max_size=8))
def test_any_sequence_of_refunds_balances(attempts: list[tuple[int, int]]) -> None:
    """After any attempts, the refunded and held amounts add up to the captured one, and each key pays once."""
    with create_desk() as desk:
        captured = held_cents(desk.list_charges("1042"))
        paid: dict[str, int] = {}
        for cents, key in attempts:
            try:
                refund = desk.refund("1042", cents, "test", f"key-{key}")
            except RefundImpossible:
                continue
            assert paid.setdefault(refund.key, refund.cents) == refund.cents == cents
        charges = desk.list_charges("1042")
        assert sum(paid.values()) + held_cents(charges) == captured
        assert all(0 <= charge.refunded_cents <= charge.captured_cents for charge in charges)


def test_the_same_key_returns_the_first_refund() -> None:
    """A repeated call pays nothing more; the key on another order or amount is refused."""
    with create_desk() as desk:
        first = desk.refund("1042", 4600, "charged twice", "run-1")
        assert desk.refund("#1042 ", 4600, "again", "run-1") == first
        assert held_cents(desk.list_charges("1042")) == 4600
        with pytest.raises(RefundImpossible, match="run-1"):
            desk.refund("1042", 100, "charged twice", "run-1")
        with pytest.raises(RefundImpossible, match="run-1"):
            desk.refund("1033", 4600, "charged twice", "run-1")


def test_threads_and_connections_pay_once(tmp_path: Path) -> None:
    """Eight threads on two connections to one file, all with one key, make one refund."""
    path = tmp_path / "desk.db"
    with create_desk(path) as one, create_desk(path) as two:
        refunds = []
        threads = [
            threading.Thread(target=lambda desk=desk: refunds.append(desk.refund("1042", 4600, "twice", "run-1")))
            for desk in [one, two] * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refunds) == 8
        assert len(set(refunds)) == 1
        assert held_cents(two.list_charges("1042")) == 4600


def test_a_refused_refund_writes_nothing() -> None:
    """After a refund that is too large the charges are unchanged and the next refund works."""
    with create_desk() as desk:
        before = desk.list_charges("1042")
        with pytest.raises(RefundImpossible, match="between 1 and the 9200 held"):
            desk.refund("1042", 9201, "too much", "run-1")
        assert desk.list_charges("1042") == before
        assert desk.refund("1042", 9200, "all of it", "run-1").cents == 9200


def test_unknown_orders_are_named() -> None:
    """Finding an unknown order returns None; any other call with one is an error that names it."""
    with create_desk() as desk:
        assert desk.find_order("9917") is None
        for call in (
            lambda: desk.list_charges("9917"),
            lambda: desk.refund("9917", 1, "x", "k"),
            lambda: desk.open_ticket("9917", "x", "k"),
        ):
            with pytest.raises(UnknownOrder, match="9917"):
                call()


def test_a_ticket_is_opened_once_per_key() -> None:
    """The same key returns the first ticket, with or without an order; on another order it is refused."""
    with create_desk() as desk:
        first = desk.open_ticket("1021", "search the parcel", "run-1")
        assert desk.open_ticket("1021", "search it again", "run-1") == first
        general = desk.open_ticket(None, "call the customer", "run-2")
        assert general.order is None
        assert general.id != first.id
        with pytest.raises(TicketImpossible, match="run-1"):
            desk.open_ticket("1042", "search", "run-1")
    assert issubclass(TicketImpossible, DeskError)


def test_find_order() -> None:
    """An order has its seeded customer, dates, items and total."""
    with create_desk() as desk:
        order = desk.find_order(" #1006 ")
        assert order is not None
        assert (order.customer, order.status, order.currency) == ("Liam Byrne", "lost", "GBP")
        assert (order.shipped_on, order.delivered_on) == (dt.date(2026, 10, 22), None)
        assert [item.name for item in order.items] == ["Mat", "Boot rack"]
        assert order.total_cents == 5300


def test_the_seed_is_consistent() -> None:
    """Dates are in order, states have the dates they need, and recorded refunds match the charges."""
    with create_desk() as desk, desk.transaction() as connection:
        for seeded in ORDERS:
            order = desk.find_order(seeded.number)
            assert order is not None
            days = [day for day in (order.placed_on, order.shipped_on, order.delivered_on) if day]
            assert days == sorted(days)
            assert (order.shipped_on is not None) == (order.status in ("shipped", "delivered", "lost", "returned"))
            assert (order.delivered_on is not None) == (order.status in ("delivered", "returned"))
            refunded = sum(charge.refunded_cents for charge in desk.list_charges(order.number))
            query = "SELECT COALESCE(SUM(cents), 0) FROM refunds WHERE order_number = ?"
            assert connection.execute(query, (order.number,)).fetchone() == (refunded,)
    assert len({order.number for order in ORDERS}) == len(ORDERS) >= 45
    assert {order.customer for order in ORDERS} == set(range(1, len(CUSTOMERS) + 1))


def test_an_existing_desk_is_kept(tmp_path: Path) -> None:
    """Creating a desk where one exists keeps its refunds and seeds nothing twice."""
    path = tmp_path / "desk.db"
    with create_desk(path) as desk:
        desk.refund("1042", 4600, "charged twice", "run-1")
    with create_desk(path) as desk:
        assert held_cents(desk.list_charges("1042")) == 4600
    with Desk(path) as desk, desk.transaction() as connection:
        assert connection.execute("SELECT COUNT(*) FROM orders").fetchone() == (len(ORDERS),)
