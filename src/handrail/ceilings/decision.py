"""Whether a model request may be made, and with how much output: a pure decision over what is spent and held.

What is held counts like what is spent. A request that is admitted therefore stays below every cutoff, whatever the
requests under way turn out to cost.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from handrail.kernel.errors import BadInput
from handrail.kernel.money import ZERO, NanoUsd, format_usd

from .amounts import NOTHING, Amount
from .limits import CeilingScope, Limits, MoneyScope
from .windows import Window

PriceBound = Callable[[int, int], NanoUsd]
"""The most that a number of input tokens and a number of output tokens may cost; it does no I/O."""


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """A model request that somebody wants to make.

    Attributes:
        input_tokens: An upper bound for this request, but for what is `unbounded`.
        output_tokens: The most that the request would like.
        price: None where nobody knows the model's price.
        unbounded: The names of what can cost more than the price of these tokens; empty if the operator allows it.

    Raises:
        BadInput: For less than 0 input tokens or 1 output token.
    """

    run_id: str
    user: str
    tenant: str
    input_tokens: int
    output_tokens: int
    price: PriceBound | None
    unbounded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.output_tokens < 1 or self.input_tokens < 0:
            raise BadInput(
                f"run {self.run_id}: cannot hold {self.input_tokens} input and {self.output_tokens} output tokens; "
                "input must be 0 or more, output 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Account:
    """What is booked in one window."""

    spent: Amount = NOTHING
    held: Amount = NOTHING

    @property
    def taken(self) -> Amount:
        """What no further request can have: spent and held."""
        return self.spent + self.held


@dataclass(frozen=True, slots=True)
class LongConversation:
    """A conversation whose earlier messages no longer fit into a request beside what is new.

    Attributes:
        messages: How many earlier messages there are.
        input_tokens: At most how many input tokens they are.
    """

    conversation_id: str
    messages: int
    input_tokens: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not be made: one ceiling that it does not fit under, in nano-dollars or tokens.

    Attributes:
        limit: Where the ceiling stops requests (its cutoff).
        requested: What did not fit; None where it is unknown (a cost without a bound, a price that nobody knows).
        fits: What would still fit now; `held` becomes available as soon as the requests under way are settled.
        resets_at: None where the ceiling does not reset (run, conversation, price, unbounded).
        unbounded: What makes the cost of the request impossible to bound, by name; empty for all other scopes.
        conversation: What has outgrown the run's input limit, where the scope is `conversation`: the request would fit
            without the earlier messages.
    """

    scope: Literal["run", "conversation", "user", "tenant", "price", "unbounded"]
    unit: Literal["usd", "input_tokens", "output_tokens"]
    limit: int
    spent: int
    held: int
    requested: int | None
    fits: int
    resets_at: datetime | None
    unbounded: tuple[str, ...] = ()
    conversation: LongConversation | None = None

    @classmethod
    def of_unbounded(cls, names: tuple[str, ...]) -> Self:
        """The refusal of a request whose cost cannot be bounded, because of what `names` says."""
        return cls("unbounded", "usd", 0, spent=0, held=0, requested=None, fits=0, resets_at=None, unbounded=names)

    def __str__(self) -> str:
        """What was refused and why in one line, for engineers."""
        if self.scope == "price":
            return (
                "price: the price of this model is not known, or not that of the service tier or mode asked for, and "
                "there is a ceiling on money; set one under [prices], or ask for the standard tier"
            )
        if self.scope == "unbounded":
            return (
                f"unbounded: a request with {', '.join(self.unbounded)} has no known bound on its cost, and there is a "
                'ceiling on money; send it without, or set unbounded = "allow" under [ceilings.agents.NAME]'
            )
        assert self.requested is not None
        resets = "it does not reset" if self.resets_at is None else f"it resets at {self.resets_at.isoformat()}"
        return (
            f"{self.scope}: {self._format(self.requested)} requested, {self._format(self.fits)} left "
            f"({self._format(self.limit)} less {self._format(self.spent)} spent and {self._format(self.held)} held); "
            f"{resets}{self._advice()}"
        )

    def _advice(self) -> str:
        """What to do about a conversation that is too long, after a semicolon."""
        if self.conversation is None:
            return ""
        long = self.conversation
        return (
            f"; the {long.messages:,} earlier messages of conversation {long.conversation_id} are "
            f"{long.input_tokens:,} of these tokens, and the request would fit without them: start a new conversation "
            "with another conversation_id, or raise run_input_tokens under [ceilings]"
        )

    def _format(self, amount: int) -> str:
        return format_usd(NanoUsd(amount)) if self.unit == "usd" else f"{amount:,} {self.unit.replace('_', ' ')}"


def decide_hold(
    request: HoldRequest,
    accounts: Mapping[CeilingScope, Account],
    limits: Limits,
    windows: Mapping[CeilingScope, Window],
) -> Amount | Refusal:
    """Decides what to hold for a request.

    The output is cut to what the run has left. Money is never cut to fit: a hold below the worst case would let the
    request cost more than was held. Where no money is left, only models that cost nothing are admitted. A request that
    may cost more than any bound is refused under a ceiling on money, unless its model costs nothing.

    Args:
        request: Whose request it is, and how large.
        accounts: What is booked on the run, the user and the tenant.
        limits: The ceilings in force.
        windows: The windows of the accounts.

    Returns:
        What to hold, or the refusal of the ceiling that takes longest to reset.
    """
    run = accounts["run"].taken
    input_left = max(limits.run_input_tokens - run.input_tokens, 0)
    output_left = max(limits.run_output_tokens - run.output_tokens, 0)
    if request.input_tokens > input_left:
        return _run_refusal("input_tokens", limits.run_input_tokens, accounts["run"], request.input_tokens)
    if output_left < 1:
        return _run_refusal("output_tokens", limits.run_output_tokens, accounts["run"], request.output_tokens)
    granted = min(request.output_tokens, output_left)
    is_capped = limits.user_day is not None or limits.tenant_month is not None
    if request.price is not None:
        cost = request.price(request.input_tokens, granted)
    elif is_capped:
        return Refusal("price", "usd", limit=0, spent=0, held=0, requested=None, fits=0, resets_at=None)
    else:
        cost = ZERO
    if request.unbounded and is_capped and cost > ZERO:
        return Refusal.of_unbounded(request.unbounded)
    refusals = list(_money_refusals(cost, accounts, limits, windows))
    if refusals:
        return max(refusals, key=_reset)
    return Amount(cost, request.input_tokens, granted)


def _run_refusal(
    unit: Literal["input_tokens", "output_tokens"], limit: int, account: Account, requested: int
) -> Refusal:
    spent, held = getattr(account.spent, unit), getattr(account.held, unit)
    return Refusal("run", unit, limit, spent, held, requested, max(limit - spent - held, 0), None)


def _money_refusals(
    cost: NanoUsd, accounts: Mapping[CeilingScope, Account], limits: Limits, windows: Mapping[CeilingScope, Window]
) -> Iterator[Refusal]:
    # The tenant's first: of two that reset at the same moment `max` returns it, since it concerns more people.
    scopes: tuple[MoneyScope, ...] = ("tenant", "user")
    for scope in scopes:
        cutoff = limits.cutoff(scope)
        if cutoff is None:
            continue
        spent, held = accounts[scope].spent.cost, accounts[scope].held.cost
        fits = max(cutoff - spent - held, 0)
        if cost > fits:
            yield Refusal(scope, "usd", cutoff, spent, held, cost, fits, windows[scope].end)


def _reset(refusal: Refusal) -> datetime:
    assert refusal.resets_at is not None
    return refusal.resets_at
