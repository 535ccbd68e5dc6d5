"""Whether a model request may be made, and with how much output: a pure decision over what is spent and held.

What is held counts like what is spent, so a request that is admitted stays below every cutoff, whatever the others
that are under way come to.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from handrail.kernel.errors import BadInput
from handrail.kernel.money import ZERO, NanoUsd, show_usd

from .amounts import NOTHING, Amount
from .limits import Limits, MoneyScope, Scope
from .windows import Window

Price = Callable[[int, int], NanoUsd]
"""The most that so many input and output tokens may cost; it does no I/O."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that somebody wants to make.

    `input_tokens` is an upper bound for this request, or None where it has none. `output_tokens` is the maximum that
    the request would like. A `price` of None means that nobody knows it. Raises BadInput for counts that are none.
    """

    run_id: str
    user: str
    tenant: str
    input_tokens: int | None
    output_tokens: int
    price: Price | None

    def __post_init__(self) -> None:
        if self.output_tokens < 1 or (self.input_tokens is not None and self.input_tokens < 0):
            raise BadInput(
                f"run {self.run_id}: a request asks for {self.input_tokens} input and {self.output_tokens} output "
                "tokens; ask for at least 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class Account:
    """What is booked in one window."""

    spent: Amount = NOTHING
    held: Amount = NOTHING

    @property
    def taken(self) -> Amount:
        return self.spent + self.held


@dataclass(frozen=True, slots=True)
class Refusal:
    """The no of one ceiling, in nano-dollars or tokens.

    `limit` is where the ceiling stops: its cutoff. `asked` is what did not fit, None where it cannot be told (input
    without a bound, a price that nobody knows). `fits` is what would still fit now; below the first `held` comes back
    as soon as its requests are settled. `resets_at` is None where it does not reset (run, price).
    """

    scope: Literal["run", "user", "tenant", "price"]
    unit: Literal["usd", "input_tokens", "output_tokens"]
    limit: int
    spent: int
    held: int
    asked: int | None
    fits: int
    resets_at: datetime | None

    def __str__(self) -> str:
        """The arithmetic in one line, for engineers."""
        if self.scope == "price":
            return "price: nobody knows this model's, and there is a ceiling on money; set it under [prices]"
        asked = "an unknown amount" if self.asked is None else self._show(self.asked)
        resets = "it does not reset" if self.resets_at is None else f"it resets at {self.resets_at.isoformat()}"
        return (
            f"{self.scope}: {asked} asked, {self._show(self.fits)} fits "
            f"({self._show(self.limit)} less {self._show(self.spent)} spent and {self._show(self.held)} held); {resets}"
        )

    def _show(self, amount: int) -> str:
        return show_usd(NanoUsd(amount)) if self.unit == "usd" else f"{amount:,} {self.unit.replace('_', ' ')}"


def decide(
    ask: Ask, accounts: Mapping[Scope, Account], limits: Limits, windows: Mapping[Scope, Window]
) -> Amount | Refusal:
    """What to hold for `ask`, or the refusal of the ceiling that has to be waited for longest.

    The output is cut to what the run has left. Money is never cut to fit: a hold below the worst case would let the
    request cost more than was held. Only free models are admitted where the price is ZERO and nothing is left.
    """
    run = accounts["run"].taken
    input_left = max(limits.run_input_tokens - run.input_tokens, 0)
    output_left = max(limits.run_output_tokens - run.output_tokens, 0)
    if ask.input_tokens is None or ask.input_tokens > input_left:
        return _of_run("input_tokens", limits.run_input_tokens, accounts["run"], ask.input_tokens)
    if output_left < 1:
        return _of_run("output_tokens", limits.run_output_tokens, accounts["run"], ask.output_tokens)
    granted = min(ask.output_tokens, output_left)
    if ask.price is not None:
        cost = ask.price(ask.input_tokens, granted)
    elif limits.user_day is None and limits.tenant_month is None:
        cost = ZERO
    else:
        return Refusal("price", "usd", limit=0, spent=0, held=0, asked=None, fits=0, resets_at=None)
    refusals = list(_of_money(cost, accounts, limits, windows))
    if refusals:
        return max(refusals, key=_waiting)
    return Amount(cost, ask.input_tokens, granted)


def _of_run(unit: Literal["input_tokens", "output_tokens"], limit: int, account: Account, asked: int | None) -> Refusal:
    spent, held = getattr(account.spent, unit), getattr(account.held, unit)
    return Refusal("run", unit, limit, spent, held, asked, max(limit - spent - held, 0), None)


def _of_money(
    cost: NanoUsd, accounts: Mapping[Scope, Account], limits: Limits, windows: Mapping[Scope, Window]
) -> Iterator[Refusal]:
    # The tenant's first: of two that reset at the same moment `max` names it, since it concerns more people.
    scopes: tuple[MoneyScope, ...] = ("tenant", "user")
    for scope in scopes:
        cutoff = limits.cutoff(scope)
        if cutoff is None:
            continue
        spent, held = accounts[scope].spent.cost, accounts[scope].held.cost
        fits = max(cutoff - spent - held, 0)
        if cost > fits:
            yield Refusal(scope, "usd", cutoff, spent, held, cost, fits, windows[scope].end)


def _waiting(refusal: Refusal) -> datetime:
    assert refusal.resets_at is not None
    return refusal.resets_at
