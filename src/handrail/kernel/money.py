"""Money as whole nano-dollars (1 USD = 1_000_000_000), rounded up so that no sum of parts is below its whole."""

from decimal import ROUND_CEILING, Decimal
from typing import NewType

NanoUsd = NewType("NanoUsd", int)

ZERO = NanoUsd(0)
_PER_USD = Decimal(1_000_000_000)


def nano_usd(usd: Decimal) -> NanoUsd:
    """Dollars as nano-dollars, rounded up (towards positive infinity)."""
    return NanoUsd(int((usd * _PER_USD).to_integral_value(rounding=ROUND_CEILING)))


def usd(amount: NanoUsd) -> Decimal:
    """Nano-dollars as exact dollars."""
    return Decimal(amount) / _PER_USD


def format_usd(amount: NanoUsd) -> str:
    """Formats money for people: cents from one dollar up, four significant digits below, never rounded to nothing.

    >>> format_usd(NanoUsd(12_340_000_000)), format_usd(NanoUsd(1_234_567)), format_usd(ZERO)
    ('$12.34', '$0.001235', '$0.00')

    Args:
        amount: Nano-dollars; they may be negative.

    Returns:
        The amount with its sign and a dollar sign.
    """
    dollars = usd(amount)
    if dollars == 0 or abs(dollars) >= 1:
        return f"${dollars:.2f}" if dollars >= 0 else f"-${-dollars:.2f}"
    digits = 3 - dollars.adjusted()
    text = f"{abs(dollars):.{max(digits, 2)}f}"
    whole, _, fraction = text.partition(".")
    return f"{'-' if dollars < 0 else ''}${whole}.{fraction.rstrip('0').ljust(2, '0')}"
