"""The ceilings as values, and where each of them stops."""

from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from handrail.config.settings import Ceilings
from handrail.kernel.money import NanoUsd, nano_usd

Scope = Literal["run", "user", "tenant"]
MoneyScope = Literal["user", "tenant"]

CUTOFF_PERCENT: dict[MoneyScope, int] = {"user": 100, "tenant": 120}
"""Where a budget stops, in percent of it. A tenant's month goes on for a fifth: it is alerted before it is cut off."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is in force: tokens of one run, and budgets in nano-dollars, of which None sets no ceiling.

    Days and months are those of `time_zone`; another zone begins other days and months, with nothing spent in them.
    """

    run_input_tokens: int
    run_output_tokens: int
    user_day: NanoUsd | None
    tenant_month: NanoUsd | None
    time_zone: ZoneInfo

    def budget(self, scope: MoneyScope) -> NanoUsd | None:
        return self.user_day if scope == "user" else self.tenant_month

    def cutoff(self, scope: MoneyScope) -> NanoUsd | None:
        """Nano-dollars that are never passed, cut to whole ones; None where there is no ceiling."""
        budget = self.budget(scope)
        return None if budget is None else NanoUsd(budget * CUTOFF_PERCENT[scope] // 100)


def limits_of(ceilings: Ceilings) -> Limits:
    """The limits that the settings ask for."""
    return Limits(
        run_input_tokens=ceilings.run_input_tokens,
        run_output_tokens=ceilings.run_output_tokens,
        user_day=None if ceilings.user_day is None else nano_usd(ceilings.user_day),
        tenant_month=None if ceilings.tenant_month is None else nano_usd(ceilings.tenant_month),
        time_zone=ZoneInfo(ceilings.time_zone),
    )
