"""The desk's contents for the demo and the eval set: invented orders, some for each rule of policy.md."""

import datetime as dt
from pathlib import Path
from typing import NamedTuple

from .desk import DESK_TODAY, Desk, Status


class SeedOrder(NamedTuple):
    """An order in one line: dates are "MM-DD" of 2026, items are (name, quantity, cents each)."""

    number: str
    customer: int
    status: Status
    placed: str
    shipped: str | None
    delivered: str | None
    currency: str
    items: list[tuple[str, int, int]]
    captured: list[int]
    """Cents of each charge, a day apart; 0 is a bank's hold that was never captured."""
    refunded: int = 0


CUSTOMERS = [
    "Alice Turner", "Ben Okafor", "Chloe Martin", "David Lindqvist", "Elena Rossi", "Farid Haddad", "Greta Neumann",
    "Hugo Lefevre", "Ines Carvalho", "Jan de Vries", "Kasia Nowak", "Liam Byrne", "Marta Ruiz", "Noah Weber",
    "Olga Petrova", "Paolo Conti", "Quentin Dubois", "Rosa Jimenez", "Sven Bakker", "Tomasz Zielinski", "Ursula Brandt",
    "Victor Almeida", "Wendy Clarke", "Xavier Moreau", "Yuki Tanaka", "Zeynep Kaya", "Amir Nasser", "Bridget Shaw",
    "Carlos Mendes", "Dora Fischer",
]  # fmt: skip

# fmt: off
ORDERS = [
    SeedOrder("1001", 1, "delivered", "08-09", "08-11", "08-14", "EUR", [("Ceramic teapot, blue", 1, 3900)], [3900]),
    SeedOrder("1002", 2, "delivered", "11-07", "11-09", "11-12", "EUR", [("Wool blanket, grey", 1, 7900)], [7900]),
    SeedOrder("1003", 3, "shipped", "11-15", "11-17", None, "EUR", [("Garden lantern", 2, 2450)], [4900]),
    SeedOrder("1004", 4, "shipped", "11-04", "11-06", None, "EUR", [("Oak side table", 1, 12900)], [12900]),
    SeedOrder("1005", 11, "shipped", "11-05", "11-07", None, "EUR", [("Bread box", 1, 4500)], [4500]),
    SeedOrder("1006", 12, "lost", "10-20", "10-22", None, "GBP", [("Mat", 1, 2200), ("Boot rack", 1, 3100)], [5300]),
    SeedOrder("1007", 23, "cancelled", "11-10", None, None, "GBP", [("Garden bench", 1, 18900)], [18900]),
    SeedOrder("1008", 28, "cancelled", "11-08", None, None, "GBP", [("Picnic basket", 1, 6400)], [6400], 6400),
    SeedOrder("1009", 1, "delivered", "11-05", "11-07", "11-10", "EUR", [("Linen curtain", 2, 3450)], [6900, 6900]),
    SeedOrder("1010", 2, "delivered", "11-06", "11-08", "11-11", "EUR", [("Desk lamp", 1, 5900)], [5900, 0]),
    SeedOrder("1011", 12, "delivered", "10-31", "11-02", "11-05", "GBP", [("Water can", 1, 2900)], [2900, 2900], 2900),
    SeedOrder("1012", 23, "delivered", "10-16", "10-18", "10-21", "GBP", [("Wall mirror", 1, 8900)], [8900]),
    SeedOrder("1013", 28, "delivered", "10-15", "10-17", "10-20", "GBP", [("Glass carafe", 1, 2700)], [2700]),
    SeedOrder("1014", 6, "paid", "11-18", None, None, "EUR", [("Bath towel set", 1, 4900)], [4900]),
    SeedOrder("1015", 3, "shipped", "11-16", "11-18", None, "EUR", [("Fern in a pot", 3, 1500)], [4500]),
    SeedOrder("1016", 11, "delivered", "11-10", "11-12", "11-15", "EUR", [("Electric kettle", 1, 5400)], [5400]),
    SeedOrder("1017", 4, "delivered", "11-08", "11-10", "11-13", "EUR", [("Glass pendant lamp", 1, 9900)], [9900]),
    SeedOrder("1018", 12, "returned", "10-12", "10-14", "10-17", "GBP", [("Cushion, green", 4, 1800)], [7200]),
    SeedOrder("1019", 28, "returned", "10-10", "10-12", "10-15", "GBP", [("Hammock", 1, 7400)], [7400], 7400),
    SeedOrder("1020", 7, "shipped", "10-28", "10-30", None, "EUR", [("Raised garden bed", 1, 14900)], [14900]),
    SeedOrder("1021", 14, "delivered", "11-09", "11-11", "11-14", "EUR", [("Cutlery set", 1, 8400)], [8400]),
    SeedOrder("1022", 21, "delivered", "11-04", "11-06", "11-09", "EUR", [("Bed linen, white", 1, 6900)], [6900]),
    SeedOrder("1023", 30, "delivered", "11-11", "11-13", "11-16", "EUR", [("Garden gloves, size M", 1, 1900)], [1900]),
    SeedOrder("1024", 8, "placed", "11-19", None, None, "EUR", [("Copper pan", 1, 11900)], []),
    SeedOrder("1025", 17, "delivered", "09-27", "09-29", "10-02", "EUR", [("Floor lamp", 1, 13900)], [13900]),
    SeedOrder("1026", 24, "lost", "10-18", "10-20", None, "EUR", [("Tea towels", 6, 800)], [4800], 4800),
    SeedOrder("1027", 26, "shipped", "10-30", "11-01", None, "TRY", [("Coffee set", 1, 245000)], [245000]),
    SeedOrder("1028", 13, "delivered", "11-07", "11-09", "11-12", "EUR", [("Vase, tall", 1, 3500)], [5300]),
    SeedOrder("1029", 18, "cancelled", "11-02", None, None, "EUR", [("Bird house", 2, 2600)], [5200], 2600),
    SeedOrder("1030", 8, "delivered", "11-12", "11-14", "11-17", "EUR", [("Porcelain plates", 6, 1200)], [7200]),
    SeedOrder("1031", 17, "shipped", "11-14", "11-16", None, "EUR", [("Clothes rail", 1, 5900)], [5900]),
    SeedOrder("1032", 24, "paid", "11-12", None, None, "EUR", [("Olive tree", 1, 8900)], [8900]),
    SeedOrder("1033", 5, "delivered", "10-29", "10-31", "11-03", "EUR", [("Moka pot", 1, 3200)], [3200, 3200]),
    SeedOrder("1034", 13, "delivered", "11-13", "11-15", "11-18", "EUR", [("Shelf, three boards", 1, 7700)], [7700]),
    SeedOrder("1035", 10, "paid", "11-19", None, None, "EUR", [("Bicycle basket", 1, 3900)], [3900]),
    SeedOrder("1036", 9, "shipped", "11-02", "11-04", None, "EUR", [("Terracotta pots", 5, 900)], [4500]),
    SeedOrder("1037", 20, "cancelled", "11-09", None, None, "PLN", [("Candle holder", 1, 12900)], [12900]),
    SeedOrder("1038", 25, "delivered", "11-01", "11-03", "11-08", "EUR", [("Tea bowls", 2, 2100)], [4200]),
    SeedOrder("1039", 27, "shipped", "11-13", "11-15", None, "EUR", [("Prayer rug", 1, 9900)], [9900]),
    SeedOrder("1040", 16, "delivered", "09-10", "09-12", "09-15", "EUR", [("Pizza stone", 1, 3900)], [3900]),
    SeedOrder("1041", 22, "delivered", "10-27", "10-29", "11-01", "EUR", [("Armchair, ochre", 1, 34900)], [34900]),
    SeedOrder("1042", 15, "delivered", "11-07", "11-09", "11-12", "EUR", [("Spice rack", 1, 4600)], [4600, 4600]),
    SeedOrder("1043", 14, "shipped", "11-17", "11-19", None, "EUR", [("Snow shovel", 1, 3300)], [3300]),
    SeedOrder("1044", 19, "lost", "10-25", "10-27", None, "EUR", [("Wine rack", 1, 5600)], [5600]),
    SeedOrder("1045", 29, "delivered", "10-28", "10-30", "11-02", "EUR", [("Cast-iron pan", 1, 6500)], [6500]),
    SeedOrder("1046", 16, "shipped", "11-11", "11-13", None, "USD", [("Patio heater", 1, 21900)], [21900]),
    SeedOrder("1047", 22, "delivered", "11-06", "11-08", "11-11", "EUR", [("Rattan basket", 1, 2800)], [2800]),
    SeedOrder("1048", 19, "delivered", "11-01", "11-03", "11-06", "EUR", [("Trolley, oak", 1, 15900)], [15900, 15900]),
]
# fmt: on


SEEDED = "seed-"
"""The prefix of the keys of the refunds that the desk starts with."""


def create_desk(path: Path | str = ":memory:") -> Desk:
    """Opens the desk at `path`, and fills it if it is empty; a desk with orders is opened as it is."""
    desk = Desk(path)
    with desk.transaction() as connection:
        if connection.execute("SELECT 1 FROM orders").fetchone():
            return desk
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?)",
            [
                (number, name, f"{name.lower().replace(' ', '.')}@example.com")
                for number, name in enumerate(CUSTOMERS, start=1)
            ],
        )
        for order in ORDERS:
            days = (_day(order.placed), _day(order.shipped), _day(order.delivered))
            connection.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)",
                (order.number, order.customer, order.status, *days, order.currency),
            )
            connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", [(order.number, *i) for i in order.items])
            last = len(order.captured) - 1
            connection.executemany(
                "INSERT INTO charges (order_number, charged_on, captured_cents, refunded_cents) VALUES (?, ?, ?, ?)",
                [
                    (order.number, _day(order.placed, later), cents, order.refunded if later == last else 0)
                    for later, cents in enumerate(order.captured)
                ],
            )
            if order.refunded:
                connection.execute(
                    "INSERT INTO refunds (key, order_number, cents, reason, made_on) VALUES (?, ?, ?, ?, ?)",
                    (
                        f"{SEEDED}{order.number}",
                        order.number,
                        order.refunded,
                        "refunded by the shop",
                        DESK_TODAY.isoformat(),
                    ),
                )
    return desk


def _day(day: str | None, later: int = 0) -> str | None:
    return (dt.date.fromisoformat(f"2026-{day}") + dt.timedelta(days=later)).isoformat() if day else None
