"""The ledger against a model of it: hold, settle and charge in any order, over days and months."""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Row, select

from handrail.ceilings.amounts import NOTHING, Amount
from handrail.ceilings.decision import Ask, Refusal
from handrail.ceilings.ledger import LEASE, Hold, _account_rows, accounts, charge_expired, hold, settle
from handrail.ceilings.ledger_queries import audit, load_holds, spending
from handrail.ceilings.limits import Limits, Scope
from handrail.ceilings.windows import Window, windows_of
from handrail.kernel.db.database import Database
from handrail.kernel.db.group_writer import Op
from handrail.kernel.money import NanoUsd

ZONE = ZoneInfo("Europe/Berlin")
LIMITS = Limits(
    run_input_tokens=60, run_output_tokens=80, user_day=NanoUsd(150), tenant_month=NanoUsd(200), time_zone=ZONE
)
TENANT_CUTOFF = 240

Key = tuple[str, ...]


@dataclass
class Booked:
    """What the model knows of one hold."""

    held: Hold
    keys: tuple[Key, ...]
    lease_until: datetime
    state: str = "held"
    used: Amount = NOTHING

    @property
    def taken(self) -> Amount:
        return self.held.amount if self.state == "held" else self.used


def _price(input_tokens: int, output_tokens: int) -> NanoUsd:
    return NanoUsd(input_tokens + 2 * output_tokens)


class Ledger(RuleBasedStateMachine):
    """Few names and small limits, so that accounts fill up and holds meet on them."""

    holds = Bundle("holds")

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.database = Database.open(str(store))
        self.now = datetime(2026, 3, 28, 12, tzinfo=UTC)
        self.booked: dict[str, Booked] = {}
        self.asked = 0

    def teardown(self) -> None:
        self.database.close()

    @rule(
        target=holds,
        tenant=st.sampled_from(["acme", "birch"]),
        user=st.sampled_from(["u-1", "u-2"]),
        run=st.sampled_from(["r-1", "r-2", "r-3"]),
        input_tokens=st.integers(0, 30),
        output_tokens=st.integers(1, 40),
    )
    def hold(self, tenant: str, user: str, run: str, input_tokens: int, output_tokens: int) -> object:
        """A request is admitted exactly when every ceiling has room for it, with the output that the run has left."""
        self.asked += 1
        hold_id = f"h-{self.asked}"
        ask = Ask(run, user, tenant, input_tokens, output_tokens, _price)
        keys = self._keys(tenant, user, run)
        tenant_taken, user_taken, run_taken = (self._taken(key) for key in keys)
        granted = min(output_tokens, LIMITS.run_output_tokens - run_taken.output_tokens)
        cost = _price(input_tokens, granted)
        fits = (
            (input_tokens == 0 or run_taken.input_tokens + input_tokens <= LIMITS.run_input_tokens)
            and granted >= 1
            and user_taken.cost + cost <= 150
            and tenant_taken.cost + cost <= TENANT_CUTOFF
        )
        found = self._write(hold(hold_id, ask, LIMITS, self.now))
        if not fits:
            assert isinstance(found, Refusal)
            return multiple()
        assert isinstance(found, Hold)
        assert (found.hold_id, found.amount) == (hold_id, Amount(cost, input_tokens, granted))
        self.booked[hold_id] = Booked(found, keys, self.now + LEASE)
        return found

    @rule(held=holds, cost=st.integers(0, 110), input_tokens=st.integers(0, 40), output_tokens=st.integers(0, 50))
    def settle(self, held: Hold, cost: int, input_tokens: int, output_tokens: int) -> None:
        """A hold is settled once, whether it was charged before or not, and at whatever was used."""
        booked = self.booked[held.hold_id]
        used = Amount(NanoUsd(cost), input_tokens, output_tokens)
        assert self._write(settle(held, used)) is (booked.state != "settled")
        if booked.state != "settled":
            booked.state, booked.used = "settled", used

    @rule(held=consumes(holds))
    def settle_within(self, held: Hold) -> None:
        """The usual case: a request that used less than was held."""
        half = Amount(NanoUsd(held.amount.cost // 2), held.amount.input_tokens, held.amount.output_tokens // 2)
        booked = self.booked[held.hold_id]
        if self._write(settle(held, half)):
            booked.state, booked.used = "settled", half

    @rule()
    def charge(self) -> None:
        """Exactly the holds whose lease ran out are charged, at what was held."""
        expired = [each for each in self.booked.values() if each.state == "held" and each.lease_until <= self.now]
        assert self._write(charge_expired(self.now)) == len(expired)
        for each in expired:
            each.state, each.used = "charged", each.held.amount

    @rule(minutes=st.sampled_from([1, 14, 15, 12 * 60, 4 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @invariant()
    def books_are_right(self) -> None:
        """The sums are those of the holds: in the model, in the accounts, and by the ledger's own audit."""
        assert self.database.read_now(audit) == []
        stored = {row.key: row for row in self.database.read_now(_accounts)}
        for account_key, of_account in self._by_account().items():
            row = stored[account_key]
            for side, states in (("held", {"held"}), ("spent", {"settled", "charged"})):
                total = sum((each.taken for each in of_account if each.state in states), NOTHING)
                booked = (getattr(row, f"{side}_{unit}") for unit in ("cost", "input_tokens", "output_tokens"))
                assert Amount(*booked) == total

    @invariant()
    def cutoffs_are_kept(self) -> None:
        """No account is above its cutoff by more than what its requests used above their holds."""
        for account_key, of_account in self._by_account().items():
            taken = sum((each.taken for each in of_account), NOTHING)
            over = [each.taken - each.held.amount for each in of_account]
            if account_key.startswith('["run"'):
                assert taken.input_tokens <= 60 + sum(max(each.input_tokens, 0) for each in over)
                assert taken.output_tokens <= 80 + sum(max(each.output_tokens, 0) for each in over)
            else:
                cutoff = 150 if account_key.startswith('["user"') else TENANT_CUTOFF
                assert taken.cost <= cutoff + sum(max(each.cost, 0) for each in over)

    @invariant()
    def views_show_it(self) -> None:
        """The terminal's view has the current accounts, the fullest first, and a run's holds as they stand."""
        views = self.database.read_now(lambda conn: spending(conn, tenant=None, now=self.now, limits=LIMITS))
        totals = [view.spent.cost + view.held.cost for view in views]
        assert totals == sorted(totals, reverse=True)
        for view in views:
            key = self._keys(view.tenant, view.user or "", "")[0 if view.user is None else 1]
            assert view.spent + view.held == self._taken(key)
            assert (view.limit, view.cutoff) == ((200, 240) if view.user is None else (150, 150))
        found = self.database.read_now(lambda conn: [each for n in "123" for each in load_holds(conn, f"r-{n}")])
        assert {each.hold_id: each.state for each in found} == {name: each.state for name, each in self.booked.items()}

    def _write(self, op: Op) -> object:
        return self.database.write_now(op)[0]

    def _keys(self, tenant: str, user: str, run: str) -> tuple[Key, ...]:
        local = self.now.astimezone(ZONE)
        return (tenant, f"{local:%Y-%m}"), (tenant, user, f"{local:%Y-%m-%d}"), (tenant, run)

    def _taken(self, key: Key) -> Amount:
        return sum((each.taken for each in self.booked.values() if key in each.keys), NOTHING)

    def _by_account(self) -> dict[str, list[Booked]]:
        found: dict[str, list[Booked]] = {}
        for each in self.booked.values():
            for account_key in each.held.accounts:
                found.setdefault(account_key, []).append(each)
        return found


def _accounts(conn: Connection) -> Sequence[Row[Any]]:
    return conn.execute(select(accounts)).all()


def test_the_ledger_is_its_model(tmp_path: Path) -> None:
    """Whatever is held, settled and charged, and in whatever order, the ledger holds what the model says."""
    empty = tmp_path / "empty.db"
    Database.open(str(empty)).close()
    numbers = itertools.count()

    class OnACopy(Ledger):
        """A store of its own for each example: its tables take longer to make than an example to run."""

        def __init__(self) -> None:
            super().__init__(Path(shutil.copy(empty, tmp_path / f"{next(numbers)}.db")))

    run_state_machine_as_test(OnACopy, settings=settings(max_examples=20, stateful_step_count=30, deadline=None))


@st.composite
def _alike(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Two pairs of names that read the same when each is joined by some separator; they may be the same pair."""
    separator = draw(st.sampled_from(["", " ", "/", ",", "\\", '"', '", "']))
    parts = draw(st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=5))
    cuts = [draw(st.integers(1, len(parts) - 1)) for _ in range(2)]
    return [(separator.join(parts[:cut]), separator.join(parts[cut:])) for cut in cuts]


@given(_alike())
def test_no_two_names_share_an_account(pairs: list[tuple[str, str]]) -> None:
    """Accounts have the same key exactly when they are of the same scope and the same names, in the same places."""
    windows = windows_of(datetime(2026, 3, 28, tzinfo=UTC), ZONE)
    (one, other), (first, second) = (
        [_keys_of(Ask(name, name, tenant, 1, 1, None), windows) for tenant, name in pairs],
        pairs,
    )
    assert (one[0] == other[0]) == (first[0] == second[0])
    assert (one[1:] == other[1:]) == (first == second)
    assert {one[1], other[1]}.isdisjoint({one[2], other[2]})


def _keys_of(ask: Ask, windows: Mapping[Scope, Window]) -> list[str]:
    return [row["key"] for row in _account_rows(ask, windows)]
