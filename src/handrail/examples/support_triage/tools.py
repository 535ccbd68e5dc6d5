"""What the agent can do at the order desk, and when it may: a tool that cannot help now is not offered.

The desk decides what is due; a model is told, not asked.
"""

import re

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.messages import ToolReturnPart

from handrail import idempotency_key

from .desk import Desk, DeskError, Order, held_cents
from .due import refund_due
from .triage import Category

_DUE = "Refund due: yes"
_DUE_IF_FAULTY = "Refund due: only if the customer says it arrived damaged, defective, incomplete or wrong"
_NOT_DUE = "Refund due: no"
_UNKNOWN = "The desk has no order"
_SEVERAL = "charged more than once"


def find_order(ctx: RunContext[Desk], number: str) -> str:
    """Look an order up by its number: status, dates, items, and whether a refund is due."""
    order = ctx.deps.find_order(number)
    if order is None:
        return f"{_UNKNOWN} {number}."
    days = [f"{name} {day}" for name, day in (("shipped", order.shipped_on), ("delivered", order.delivered_on)) if day]
    items = ", ".join(f"{item.quantity} x {item.name}" for item in order.items)
    charges = [charge for charge in ctx.deps.list_charges(number) if charge.captured_cents]
    several = f"; {_SEVERAL}" if len(charges) > 1 else ""
    return f"Order {order.number}: {' '.join([order.status, *days])}; {items}{several}. {_due(ctx.deps, order)}."


def list_charges(ctx: RunContext[Desk], number: str) -> str:
    """List what was charged for an order and what of it was refunded."""
    try:
        charges = ctx.deps.list_charges(number)
    except DeskError as error:
        return str(error)
    lines = [
        f"{charge.charged_on}: captured {charge.captured_cents}, refunded {charge.refunded_cents} cents"
        for charge in charges
    ]
    return "; ".join(lines) or "Nothing was charged."


def refund(ctx: RunContext[Desk], number: str, cents: int, reason: Category) -> str:
    """Give money back for an order. It cannot be undone."""
    made = ctx.deps.refund(number, cents, reason, key=idempotency_key())
    return f"Refunded {made.cents} cents {made.currency} for order {made.order}."


def open_ticket(ctx: RunContext[Desk], summary: str, number: str | None = None) -> str:
    """Leave work for a colleague."""
    ticket = ctx.deps.open_ticket(number, summary, key=f"{ctx.conversation_id}/{ctx.tool_call_id}")
    return f"Ticket {ticket.id} is open."


def when_named(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers the look-up while the message has a number that may be an order's, twice at most."""
    named = re.search(r"\d{3,}", str(ctx.prompt or ""))
    return definition if named and len(_told(ctx)) < 2 else None


def when_unclear(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers the list of charges, once, where an order has more than one: its sum does not explain itself."""
    asked = any(part.tool_name == definition.name for part in _returns(ctx))
    return definition if not asked and any(_SEVERAL in told for told in _told(ctx)) else None


def when_due(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers a refund only after the desk said that one is due."""
    return definition if any(_DUE in told for told in _told(ctx)) else None


def when_unknown(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers a ticket, once, where the desk does not know the order: a colleague must search for it."""
    asked = any(part.tool_name == definition.name for part in _returns(ctx))
    return definition if not asked and any(_UNKNOWN in told for told in _told(ctx)) else None


def _told(ctx: RunContext[Desk]) -> list[str]:
    return [str(part.content) for part in _returns(ctx) if part.tool_name == "find_order"]


def _returns(ctx: RunContext[Desk]) -> list[ToolReturnPart]:
    parts = (part for message in ctx.messages for part in message.parts)
    return [part for part in parts if isinstance(part, ToolReturnPart)]


def _due(desk: Desk, order: Order) -> str:
    charges = desk.list_charges(order.number)
    if refund_due(order, charges, faulty=False):
        over = held_cents(charges) - order.total_cents
        cents = over if over > 0 and order.status not in ("cancelled", "lost", "returned") else held_cents(charges)
        return f"{_DUE}, {cents} cents"
    return _DUE_IF_FAULTY if refund_due(order, charges, faulty=True) else _NOT_DUE
