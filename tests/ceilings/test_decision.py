"""The decision to admit or refuse a request, and by which ceiling."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.ceilings.amounts import Amount
from handrail.ceilings.decision import Account, HoldRequest, PriceBound, Refusal, decide_hold
from handrail.ceilings.limits import CeilingScope, Limits, limits_of
from handrail.ceilings.windows import windows_of
from handrail.config.settings import Ceilings
from handrail.kernel.errors import BadInput
from handrail.kernel.money import ZERO, NanoUsd

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
WINDOWS = windows_of(NOW, ZoneInfo("UTC"))
TOMORROW = datetime(2026, 3, 11, tzinfo=UTC)
NEXT_MONTH = datetime(2026, 4, 1, tzinfo=UTC)
EMPTY: dict[CeilingScope, Account] = {"run": Account(), "user": Account(), "tenant": Account()}

COUNTS = st.integers(0, 300)
AMOUNTS = st.builds(Amount, COUNTS.map(NanoUsd), COUNTS, COUNTS)
ACCOUNTS = st.builds(Account, AMOUNTS, AMOUNTS)
BUDGETS = st.none() | st.integers(0, 1000).map(NanoUsd)
LIMITS = st.builds(Limits, st.integers(1, 1000), st.integers(1, 1000), BUDGETS, BUDGETS, st.just(ZoneInfo("UTC")))


def _price(input_tokens: int, output_tokens: int) -> NanoUsd:
    return NanoUsd(input_tokens + 2 * output_tokens)


def _free(_input: int, _output: int) -> NanoUsd:
    return ZERO


def _limits(run: int = 1000, user: int | None = None, tenant: int | None = None) -> Limits:
    return Limits(
        run,
        run,
        None if user is None else NanoUsd(user),
        None if tenant is None else NanoUsd(tenant),
        ZoneInfo("UTC"),
    )


def _request(
    input_tokens: int = 10, output_tokens: int = 20, price: PriceBound | None = _price, unbounded: tuple[str, ...] = ()
) -> HoldRequest:
    return HoldRequest("r-1", "u-1", "acme", input_tokens, output_tokens, price, unbounded)


def _refused(decided: Amount | Refusal) -> Refusal:
    assert isinstance(decided, Refusal)
    return decided


REQUESTS = st.builds(
    _request,
    COUNTS,
    st.integers(1, 300),
    st.sampled_from([_price, _free, None]),
    st.sampled_from([(), ("extra_body.n",)]),
)


@given(REQUESTS, st.fixed_dictionaries({"run": ACCOUNTS, "user": ACCOUNTS, "tenant": ACCOUNTS}), LIMITS)
def test_an_admitted_request_fits(request: HoldRequest, accounts: dict[CeilingScope, Account], limits: Limits) -> None:
    """An admitted amount keeps every ceiling, unless one was exceeded before and the amount adds nothing to it."""
    decided = decide_hold(request, accounts, limits, WINDOWS)
    if isinstance(decided, Refusal):
        return
    run = accounts["run"].taken + decided
    assert run.input_tokens <= limits.run_input_tokens or decided.input_tokens == 0
    assert run.output_tokens <= limits.run_output_tokens
    assert 1 <= decided.output_tokens <= request.output_tokens
    assert decided.input_tokens == request.input_tokens
    for scope, budget, percent in (("user", limits.user_day, 100), ("tenant", limits.tenant_month, 120)):
        taken = accounts[scope].taken.cost + decided.cost  # type: ignore[index]
        assert budget is None or taken * 100 <= budget * percent or decided.cost == 0


@given(REQUESTS, st.fixed_dictionaries({"run": ACCOUNTS, "user": ACCOUNTS, "tenant": ACCOUNTS}), LIMITS)
def test_a_refused_request_does_not_fit(
    request: HoldRequest, accounts: dict[CeilingScope, Account], limits: Limits
) -> None:
    """The numbers of a refusal show that the request did not fit, and how much would."""
    decided = decide_hold(request, accounts, limits, WINDOWS)
    if isinstance(decided, Amount):
        return
    assert decided.fits == max(decided.limit - decided.spent - decided.held, 0)
    if decided.unit == "output_tokens":
        assert decided.fits == 0
    else:
        assert decided.requested is None or decided.requested > decided.fits
    assert (decided.resets_at is None) == (decided.scope in ("run", "price", "unbounded"))
    assert str(decided)


def test_the_output_is_limited_to_what_is_left() -> None:
    """A request for more output than is left gets what is left, and is priced accordingly."""
    accounts = {**EMPTY, "run": Account(Amount(output_tokens=900), Amount(output_tokens=95))}
    assert decide_hold(_request(), accounts, _limits(user=20), WINDOWS) == Amount(NanoUsd(20), 10, 5)


def test_no_output_left_is_a_refusal() -> None:
    """A run whose output is used up is refused, since a request needs at least one token of output."""
    accounts = {**EMPTY, "run": Account(Amount(output_tokens=1000))}
    assert decide_hold(_request(), accounts, _limits(), WINDOWS) == Refusal(
        "run", "output_tokens", limit=1000, spent=1000, held=0, requested=20, fits=0, resets_at=None
    )


def test_input_that_does_not_fit_is_a_refusal() -> None:
    """Input that does not fit into the run is refused and not shortened."""
    accounts = {**EMPTY, "run": Account(Amount(input_tokens=600), Amount(input_tokens=391))}
    assert decide_hold(_request(), accounts, _limits(), WINDOWS) == Refusal(
        "run", "input_tokens", limit=1000, spent=600, held=391, requested=10, fits=9, resets_at=None
    )


@pytest.mark.parametrize("limits", [_limits(user=10**9), _limits(tenant=10**9)])
def test_a_cost_without_a_bound_is_refused_under_a_ceiling_on_money(limits: Limits) -> None:
    """A request that may cost any amount is refused, with what makes it so, even if much is left."""
    refusal = _refused(decide_hold(_request(unbounded=("extra_body.n", "a document")), EMPTY, limits, WINDOWS))
    assert refusal == Refusal.of_unbounded(("extra_body.n", "a document"))
    assert (refusal.scope, refusal.resets_at) == ("unbounded", None)
    assert str(refusal) == (
        "unbounded: a request with extra_body.n, a document has no known bound on its cost, and there is a "
        "ceiling on money; "
        'send it without, or set unbounded = "allow" under [ceilings.agents.NAME]'
    )


def test_a_cost_without_a_bound_is_admitted_where_nothing_can_be_spent_above_a_ceiling() -> None:
    """A request that may cost any amount is admitted if there is no ceiling on money, or if its model costs nothing."""
    unbounded = ("native tool web_search",)
    assert decide_hold(_request(unbounded=unbounded), EMPTY, _limits(), WINDOWS) == Amount(NanoUsd(50), 10, 20)
    free = _request(price=_free, unbounded=unbounded)
    assert decide_hold(free, EMPTY, _limits(user=1, tenant=1), WINDOWS) == Amount(ZERO, 10, 20)


def test_an_unknown_price_is_named_before_a_cost_without_a_bound() -> None:
    """A model without a price is refused for that first, since nothing about the request would help."""
    request = _request(price=None, unbounded=("extra_body.n",))
    assert _refused(decide_hold(request, EMPTY, _limits(user=1), WINDOWS)).scope == "price"


@pytest.mark.parametrize(("user", "scope"), [(49, "user"), (50, None)])
def test_a_user_stops_at_the_budget(user: int, scope: str | None) -> None:
    """A user's cutoff is exactly the budget, to the nano-dollar."""
    decided = decide_hold(_request(), EMPTY, _limits(user=user), WINDOWS)
    assert getattr(decided, "scope", None) == scope


@pytest.mark.parametrize(("spent", "admitted"), [(70, True), (71, False)])
def test_a_tenant_stops_at_120_percent(spent: int, admitted: bool) -> None:
    """A tenant's cutoff is exactly 120% of the budget, to the nano-dollar."""
    accounts = {**EMPTY, "tenant": Account(Amount(NanoUsd(spent)))}
    assert isinstance(decide_hold(_request(), accounts, _limits(tenant=100), WINDOWS), Amount) is admitted


def test_held_counts_like_spent() -> None:
    """Held amounts count like spent ones."""
    accounts = {**EMPTY, "user": Account(Amount(NanoUsd(30)), Amount(NanoUsd(30)))}
    refusal = _refused(decide_hold(_request(), accounts, _limits(user=100), WINDOWS))
    assert (refusal.spent, refusal.held, refusal.requested, refusal.fits) == (30, 30, 50, 40)


def test_the_ceiling_that_resets_last_is_named() -> None:
    """If the user's day and the tenant's month both refuse, the refusal names the month, which resets last."""
    refusal = _refused(decide_hold(_request(), EMPTY, _limits(user=1, tenant=1), WINDOWS))
    assert (refusal.scope, refusal.resets_at) == ("tenant", NEXT_MONTH)
    refusal = _refused(decide_hold(_request(), EMPTY, _limits(user=1), WINDOWS))
    assert (refusal.scope, refusal.resets_at) == ("user", TOMORROW)


def test_the_run_is_named_before_money() -> None:
    """A refusal by the run's ceiling is named first, since it never resets."""
    assert _refused(decide_hold(_request(2000), EMPTY, _limits(user=1, tenant=1), WINDOWS)).scope == "run"


@pytest.mark.parametrize("limits", [_limits(user=10**9), _limits(tenant=10**9)])
def test_an_unknown_price_is_refused_under_a_ceiling_on_money(limits: Limits) -> None:
    """A request without a known price is refused if there is a ceiling on money, even if much is left."""
    refusal = _refused(decide_hold(_request(price=None), EMPTY, limits, WINDOWS))
    assert (refusal.scope, refusal.unit, refusal.resets_at) == ("price", "usd", None)


def test_an_unknown_price_is_admitted_without_ceilings_on_money() -> None:
    """Without ceilings on money, a request without a price is held at no cost."""
    assert decide_hold(_request(price=None), EMPTY, _limits(), WINDOWS) == Amount(ZERO, 10, 20)


def test_a_budget_of_zero_admits_free_models_only() -> None:
    """A budget of zero refuses every request that costs money and admits free ones, even if it is exceeded."""
    accounts = {**EMPTY, "user": Account(Amount(NanoUsd(5)))}
    assert isinstance(decide_hold(_request(price=_free), accounts, _limits(user=0, tenant=0), WINDOWS), Amount)
    assert isinstance(decide_hold(_request(), EMPTY, _limits(user=0), WINDOWS), Refusal)


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(-1, 1), (0, 0)])
def test_a_negative_or_empty_hold_is_rejected(input_tokens: int, output_tokens: int) -> None:
    """Negative token counts and an empty output raise BadInput."""
    with pytest.raises(BadInput, match="output 1 or more"):
        _request(input_tokens, output_tokens)


def test_a_refusal_states_its_arithmetic() -> None:
    """A refusal as text has its scope, what was requested, what is left and why, and when it resets."""
    dollars = 1_000_000_000
    accounts = {**EMPTY, "tenant": Account(Amount(NanoUsd(110 * dollars)), Amount(NanoUsd(8 * dollars)))}
    request = _request(price=lambda _i, _o: NanoUsd(5 * dollars))
    refusal = decide_hold(request, accounts, _limits(tenant=100 * dollars), WINDOWS)
    assert str(refusal) == (
        "tenant: $5.00 requested, $2.00 left ($120.00 less $110.00 spent and $8.00 held); "
        "it resets at 2026-04-01T00:00:00+00:00"
    )
    assert str(decide_hold(_request(2000), EMPTY, _limits(), WINDOWS)) == (
        "run: 2,000 input tokens requested, 1,000 input tokens left "
        "(1,000 input tokens less 0 input tokens spent and 0 input tokens held); it does not reset"
    )


def test_limits_from_the_settings() -> None:
    """Dollars become nano-dollars, rounded up; no ceiling stays None."""
    limits = limits_of(Ceilings(user_day=Decimal("0.0000000011"), tenant_month=None, time_zone="Asia/Tokyo"))
    assert limits == Limits(30_000, 8_000, NanoUsd(2), None, ZoneInfo("Asia/Tokyo"))
    assert (limits.cutoff("user"), limits.cutoff("tenant")) == (2, None)


@given(st.integers(0, 10**18))
def test_a_cutoff_is_whole_and_not_above_120_percent(budget: int) -> None:
    """A tenant's cutoff is the greatest whole number of nano-dollars within 120% of its budget."""
    cutoff = _limits(tenant=budget).cutoff("tenant")
    assert cutoff is not None
    assert cutoff * 100 <= budget * 120 < (cutoff + 1) * 100


@given(AMOUNTS, AMOUNTS)
def test_amounts_add_and_subtract(one: Amount, other: Amount) -> None:
    """Adding and subtracting amounts are inverse, for each part."""
    assert one + other - other == one
    assert one + other == other + one


def test_the_windows_of_these_tests() -> None:
    """The windows that the tests above use contain NOW."""
    assert WINDOWS["user"].start == NOW - timedelta(hours=12)
