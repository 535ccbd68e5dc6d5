"""The limits in force, and where each of them stops requests."""

from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from handrail.config.settings import Ceilings
from handrail.kernel.money import NanoUsd, nano_usd

CeilingScope = Literal["run", "user", "tenant"]
MoneyScope = Literal["user", "tenant"]

CUTOFF_PERCENT: dict[MoneyScope, int] = {"user": 100, "tenant": 120}
"""Where a budget stops requests, in percent of it. A tenant is alerted at its budget, and cut off a fifth above it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force.

    Attributes:
        run_input_tokens: The input tokens of one run, over all its requests.
        run_output_tokens: The output tokens of one run, over all its requests.
        user_day: What a user may spend in a day; None for no ceiling.
        tenant_month: What a tenant may spend in a month; None for no ceiling.
        time_zone: Whose days and months count. Changing it begins other days and months, with nothing spent in them.
    """

    run_input_tokens: int
    run_output_tokens: int
    user_day: NanoUsd | None
    tenant_month: NanoUsd | None
    time_zone: ZoneInfo

    def budget(self, scope: MoneyScope) -> NanoUsd | None:
        """What a user or tenant is meant to spend at most; None for no ceiling."""
        return self.user_day if scope == "user" else self.tenant_month

    def cutoff(self, scope: MoneyScope) -> NanoUsd | None:
        """What a user or tenant cannot spend more than, in whole nano-dollars rounded down; None for no ceiling."""
        budget = self.budget(scope)
        return None if budget is None else NanoUsd(budget * CUTOFF_PERCENT[scope] // 100)


def limits_of(ceilings: Ceilings) -> Limits:
    """The limits that the settings set."""
    return Limits(
        run_input_tokens=ceilings.run_input_tokens,
        run_output_tokens=ceilings.run_output_tokens,
        user_day=None if ceilings.user_day is None else nano_usd(ceilings.user_day),
        tenant_month=None if ceilings.tenant_month is None else nano_usd(ceilings.tenant_month),
        time_zone=ZoneInfo(ceilings.time_zone),
    )
