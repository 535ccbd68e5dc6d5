"""A CRM that takes its time: three look-ups that need the customer's name and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from handrail import step

Sleep = Callable[[float], Awaitable[None]]

_sleep: ContextVar[Sleep] = ContextVar("slow_crm_sleep", default=asyncio.sleep)


@contextmanager
def sleeping_by(sleep: Sleep) -> Iterator[None]:
    """In the block, everything here takes the time that `sleep` makes of it."""
    token = _sleep.set(sleep)
    try:
        yield
    finally:
        _sleep.reset(token)


async def takes(seconds: float) -> None:
    """Takes that long."""
    await _sleep.get()(seconds)


@step("look up orders")
async def orders(customer: str) -> list[str]:
    await takes(2.1)
    return _KNOWN.get(customer, {}).get("orders", [])


@step("look up tickets")
async def tickets(customer: str) -> list[str]:
    await takes(1.9)
    return _KNOWN.get(customer, {}).get("tickets", [])


@step("look up invoices")
async def invoices(customer: str) -> list[str]:
    await takes(1.8)
    return _KNOWN.get(customer, {}).get("invoices", [])


_KNOWN: Mapping[str, Mapping[str, list[str]]] = {
    "u-1077": {
        "orders": ["1042: two bookends, shipped on Monday"],
        "tickets": ["88: asked for an invoice, answered"],
        "invoices": ["2026-117: paid"],
    }
}
