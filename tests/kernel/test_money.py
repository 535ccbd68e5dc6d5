"""Money is whole nano-dollars, and rounding never loses any."""

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.money import ZERO, NanoUsd, nano_usd, show_usd, usd

AMOUNTS = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=15)
NANOS = st.integers(-(10**18), 10**18).map(NanoUsd)


@given(AMOUNTS)
def test_rounding_is_up_and_by_less_than_a_nano_dollar(dollars: Decimal) -> None:
    """What is booked is never less than what was spent, and at most a nano-dollar more."""
    assert Decimal(0) <= usd(nano_usd(dollars)) - dollars < Decimal("0.000000001")


@given(st.lists(AMOUNTS, max_size=30))
def test_the_parts_never_sum_to_less_than_the_whole(parts: Sequence[Decimal]) -> None:
    """Booking each part costs at least as much as booking their sum."""
    assert sum(nano_usd(part) for part in parts) >= nano_usd(sum(parts, Decimal(0)))


@given(NANOS)
def test_dollars_and_back_is_exact(amount: NanoUsd) -> None:
    """An amount survives the way to dollars and back."""
    assert nano_usd(usd(amount)) == amount


@given(NANOS.filter(bool))
def test_no_amount_is_shown_as_nothing(amount: NanoUsd) -> None:
    """An amount that is not zero shows a digit that is not zero, and its sign."""
    shown = show_usd(amount)
    assert any(digit in shown for digit in "123456789")
    assert shown.startswith("-$" if amount < 0 else "$")


def test_how_amounts_read() -> None:
    """Cents from a dollar up, four significant digits below, and plain zero."""
    shown = [show_usd(NanoUsd(amount)) for amount in (12_340_000_000, 1_234_567, 500_000_000, -2_000_000_000, 1)]
    assert shown == ["$12.34", "$0.001235", "$0.50", "-$2.00", "$0.000000001"]
    assert show_usd(ZERO) == "$0.00"
