"""Money is counted in whole nano-dollars and rounded up."""

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import ZERO, NanoUsd, format_usd, nano_usd, usd

AMOUNTS = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=15)
NANOS = st.integers(-(10**18), 10**18).map(NanoUsd)


@given(AMOUNTS)
def test_rounding_is_up_and_by_less_than_a_nano_dollar(dollars: Decimal) -> None:
    """An amount is rounded up, by less than one nano-dollar."""
    assert Decimal(0) <= usd(nano_usd(dollars)) - dollars < Decimal("0.000000001")


@given(st.lists(AMOUNTS, max_size=30))
def test_rounded_parts_sum_to_at_least_the_rounded_sum(parts: Sequence[Decimal]) -> None:
    """The sum of rounded parts is at least the rounded sum."""
    assert sum(nano_usd(part) for part in parts) >= nano_usd(sum(parts, Decimal(0)))


@given(NANOS)
def test_dollars_and_back_is_exact(amount: NanoUsd) -> None:
    """Converting an amount to dollars and back is exact."""
    assert nano_usd(usd(amount)) == amount


@given(NANOS.filter(bool))
def test_no_amount_is_shown_as_zero(amount: NanoUsd) -> None:
    """An amount that is not zero shows a digit that is not zero, and its sign."""
    shown = format_usd(amount)
    assert any(digit in shown for digit in "123456789")
    assert shown.startswith("-$" if amount < 0 else "$")


def test_amounts_as_text() -> None:
    """Amounts from a dollar have two decimals, smaller ones four significant digits, and zero is $0.00."""
    shown = [format_usd(NanoUsd(amount)) for amount in (12_340_000_000, 1_234_567, 500_000_000, -2_000_000_000, 1)]
    assert shown == ["$12.34", "$0.001235", "$0.50", "-$2.00", "$0.000000001"]
    assert format_usd(ZERO) == "$0.00"
