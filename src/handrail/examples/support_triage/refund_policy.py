"""When a refund is due: the rule of policy.md, decided from the desk's facts."""

import datetime as dt
from collections.abc import Sequence

from .desk import DESK_TODAY, Charge, Order, held_cents

_WAIT = dt.timedelta(days=14)
_FAULTY_WITHIN = dt.timedelta(days=30)


def refund_due(order: Order, charges: Sequence[Charge], *, faulty: bool, today: dt.date = DESK_TODAY) -> bool:
    """Whether policy.md makes a refund due.

    Args:
        order: The order.
        charges: Everything that was charged for it.
        faulty: Whether the article arrived damaged or wrong; the only fact that the customer alone knows.
        today: The day to decide for.
    """
    held = held_cents(charges)
    if held <= 0:
        return False
    if held > order.total_cents or order.status in ("cancelled", "lost", "returned"):
        return True
    if order.status == "shipped" and order.shipped_on:
        return today - order.shipped_on >= _WAIT
    if order.status == "delivered" and order.delivered_on:
        return faulty and today - order.delivered_on <= _FAULTY_WITHIN
    return False
