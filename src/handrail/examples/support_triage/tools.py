"""What the agent can do at the order desk. The desk decides what is due: a model is told, not asked."""

from collections.abc import Callable

from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.messages import ToolReturnPart

from .desk import Desk, DeskError, Order, held_cents
from .rules import refund_due
from .triage import Category

_DUE = "Refund due: yes"
_DUE_IF_FAULTY = "Refund due: only if the customer says it arrived damaged, defective, incomplete or wrong"
_NOT_DUE = "Refund due: no"


def find_order(ctx: RunContext[Desk], number: str) -> str:
    """Look an order up by its number: status, dates, items, and whether a refund is due."""
    order = ctx.deps.find_order(number)
    if order is None:
        return f"The desk has no order {number}. Refund due: no."
    days = [f"{name} {day}" for name, day in (("shipped", order.shipped_on), ("delivered", order.delivered_on)) if day]
    items = ", ".join(f"{item.quantity} x {item.name}" for item in order.items)
    return f"Order {order.number}: {' '.join([order.status, *days])}; {items}. {_due(ctx.deps, order)}."


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
    made = ctx.deps.refund(number, cents, reason, key=f"{ctx.conversation_id}/{ctx.tool_call_id}")
    return f"Refunded {made.cents} cents {made.currency} for order {made.order}."


def open_ticket(ctx: RunContext[Desk], summary: str, number: str | None = None) -> str:
    """Leave work for a colleague."""
    ticket = ctx.deps.open_ticket(number, summary, key=f"{ctx.conversation_id}/{ctx.tool_call_id}")
    return f"Ticket {ticket.id} is open."


def at_most(times: int) -> Callable[[RunContext[Desk], ToolDefinition], ToolDefinition | None]:
    """Offers a tool until it was called so often in the run: small models ask again what they were told."""

    def prepare(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
        return definition if len(_returns(ctx, definition.name)) < times else None

    return prepare


def once_due(ctx: RunContext[Desk], definition: ToolDefinition) -> ToolDefinition | None:
    """Offers a tool only after the desk said that a refund is, or may be, due."""
    found = _returns(ctx, "find_order")
    return definition if any(_DUE in text or _DUE_IF_FAULTY in text for text in found) else None


def _returns(ctx: RunContext[Desk], tool: str) -> list[str]:
    parts = (part for message in ctx.messages for part in message.parts)
    return [str(part.content) for part in parts if isinstance(part, ToolReturnPart) and part.tool_name == tool]


def _due(desk: Desk, order: Order) -> str:
    charges = desk.list_charges(order.number)
    if refund_due(order, charges, faulty=False):
        over = held_cents(charges) - order.total_cents
        cents = over if over > 0 and order.status not in ("cancelled", "lost", "returned") else held_cents(charges)
        return f"{_DUE}, {cents} cents"
    return _DUE_IF_FAULTY if refund_due(order, charges, faulty=True) else _NOT_DUE
