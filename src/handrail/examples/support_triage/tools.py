"""The agent's tools at the order desk, and when each is offered: a tool that cannot help now is left out.

The desk's facts decide whether a refund is due; the model only reads the result.
"""

import re

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.messages import ToolReturnPart

from handrail import idempotency_key

from .desk import Desk, DeskError, Order, held_cents
from .refund_policy import refund_due
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
    status = " ".join([order.status, *days])
    return f"Order {order.number}: {status}; {items}{several}. {_refund_status(ctx.deps, order)}."


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
    refunded = ctx.deps.refund(number, cents, reason, key=idempotency_key())
    return f"Refunded {refunded.cents} cents {refunded.currency} for order {refunded.order}."


def open_ticket(ctx: RunContext[Desk], summary: str, number: str | None = None) -> str:
    """Leave work for a colleague."""
    ticket = ctx.deps.open_ticket(number, summary, key=f"{ctx.conversation_id}/{ctx.tool_call_id}")
    return f"Ticket {ticket.id} is open."


def when_named(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers the lookup, at most twice, if the message has a number that may be an order's."""
    has_number = re.search(r"\d{3,}", str(ctx.prompt or "")) is not None
    return definition if has_number and len(_lookup_results(ctx)) < 2 else None


def when_unclear(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers the list of charges once, if an order has several, since the lookup does not show them."""
    called = any(part.tool_name == definition.name for part in _returns(ctx))
    return definition if not called and any(_SEVERAL in result for result in _lookup_results(ctx)) else None


def when_due(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers a refund only after a lookup said that one is due."""
    return definition if any(_DUE in result for result in _lookup_results(ctx)) else None


def when_unknown(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers a ticket once, if the desk does not know the order, so that a colleague searches for it."""
    called = any(part.tool_name == definition.name for part in _returns(ctx))
    return definition if not called and any(_UNKNOWN in result for result in _lookup_results(ctx)) else None


def _lookup_results(ctx: RunContext[Desk]) -> list[str]:
    return [str(part.content) for part in _returns(ctx) if part.tool_name == "find_order"]


def _returns(ctx: RunContext[Desk]) -> list[ToolReturnPart]:
    parts = (part for message in ctx.messages for part in message.parts)
    return [part for part in parts if isinstance(part, ToolReturnPart)]


def _refund_status(desk: Desk, order: Order) -> str:
    charges = desk.list_charges(order.number)
    if refund_due(order, charges, faulty=False):
        held = held_cents(charges)
        overcharged = held - order.total_cents
        cents = overcharged if overcharged > 0 and order.status not in ("cancelled", "lost", "returned") else held
        return f"{_DUE}, {cents} cents"
    return _DUE_IF_FAULTY if refund_due(order, charges, faulty=True) else _NOT_DUE
