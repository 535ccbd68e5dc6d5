"""Rates: the bound over several price lists."""

from decimal import Decimal

from handrail.models.rates import cost_bound


def test_a_tier_of_one_list_does_not_hide_a_flat_price_of_another() -> None:
    """Above a threshold the bound is the highest of all prices, also of those without thresholds."""
    flat = {"input_mtok": ((-1, Decimal(5_000_000)),), "output_mtok": ((-1, Decimal(1_000_000)),)}
    tiered = {
        "input_mtok": ((-1, Decimal(2_000_000)), (100, Decimal(4_000_000)), (1_000, Decimal(6_000_000))),
        "output_mtok": ((-1, Decimal(0)), (100, Decimal(3_000_000))),
    }
    bound = cost_bound([flat, tiered], {"text"}, searches=0)
    assert bound.cost(100, 10) == 100 * 5 + 10
    assert bound.cost(101, 10) == 101 * 5 + 10 * 3
    assert bound.cost(1_001, 0) == 1_001 * 6
