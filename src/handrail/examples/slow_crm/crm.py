"""A slow CRM: three lookups that need only the customer's id."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from handrail import step

Sleep = Callable[[float], Awaitable[None]]

_sleep: ContextVar[Sleep] = ContextVar("slow_crm_sleep", default=asyncio.sleep)


@contextmanager
def use_sleep(sleep: Sleep) -> Iterator[None]:
    """Makes the lookups and the model wait by calling `sleep` inside the block."""
    token = _sleep.set(sleep)
    try:
        yield
    finally:
        _sleep.reset(token)


async def wait(seconds: float) -> None:
    """Waits by calling the current `sleep` function."""
    await _sleep.get()(seconds)


@step("look up orders")
async def orders(customer: str) -> list[str]:
    """The customer's orders."""
    await wait(2.1)
    return _CUSTOMERS.get(customer, {}).get("orders", [])


@step("look up tickets")
async def tickets(customer: str) -> list[str]:
    """The customer's support tickets."""
    await wait(1.9)
    return _CUSTOMERS.get(customer, {}).get("tickets", [])


@step("look up invoices")
async def invoices(customer: str) -> list[str]:
    """The customer's invoices."""
    await wait(1.8)
    return _CUSTOMERS.get(customer, {}).get("invoices", [])


_CUSTOMERS: Mapping[str, Mapping[str, list[str]]] = {
    "u-1077": {
        "orders": ["1042: two bookends, shipped on Monday"],
        "tickets": ["88: asked for an invoice, answered"],
        "invoices": ["2026-117: paid"],
    }
}
