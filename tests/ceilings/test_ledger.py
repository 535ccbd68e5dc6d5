"""The ledger compared with a model: holding, settling and charging in any order, over days and months."""

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
from handrail.ceilings.decision import HoldRequest, Refusal
from handrail.ceilings.ledger import LEASE, Hold, _account_rows, charge_expired, hold, settle
from handrail.ceilings.ledger_queries import find_discrepancies, load_holds, load_spending
from handrail.ceilings.limits import CeilingScope, Limits
from handrail.ceilings.tables import accounts
from handrail.ceilings.windows import Window, windows_of
from handrail.kernel.db.database import Database
from handrail.kernel.db.operation import Operation
from handrail.kernel.money import NanoUsd

ZONE = ZoneInfo("Europe/Berlin")
LIMITS = Limits(
    run_input_tokens=60, run_output_tokens=80, user_day=NanoUsd(150), tenant_month=NanoUsd(200), time_zone=ZONE
)
TENANT_CUTOFF = 240

Key = tuple[str, ...]


@dataclass
class BookedHold:
    """The model's state of one hold."""

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
    """Few names and small limits, so that accounts fill up and are shared by holds."""

    holds = Bundle("holds")

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.database = Database.open(str(store))
        self.now = datetime(2026, 3, 28, 12, tzinfo=UTC)
        self.booked: dict[str, BookedHold] = {}
        self.requests = 0

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
        """A request is admitted exactly if it fits every ceiling with the output that the run has left."""
        self.requests += 1
        hold_id = f"h-{self.requests}"
        request = HoldRequest(run, user, tenant, input_tokens, output_tokens, _price)
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
        granted_hold = self._write(hold(hold_id, request, LIMITS, self.now))
        if not fits:
            assert isinstance(granted_hold, Refusal)
            return multiple()
        assert isinstance(granted_hold, Hold)
        assert (granted_hold.hold_id, granted_hold.amount) == (hold_id, Amount(cost, input_tokens, granted))
        self.booked[hold_id] = BookedHold(granted_hold, keys, self.now + LEASE)
        return granted_hold

    @rule(held=holds, cost=st.integers(0, 110), input_tokens=st.integers(0, 40), output_tokens=st.integers(0, 50))
    def settle(self, held: Hold, cost: int, input_tokens: int, output_tokens: int) -> None:
        """A hold is settled once at any usage, whether it was charged before or not."""
        booked = self.booked[held.hold_id]
        used = Amount(NanoUsd(cost), input_tokens, output_tokens)
        assert self._write(settle(held, used)) is (booked.state != "settled")
        if booked.state != "settled":
            booked.state, booked.used = "settled", used

    @rule(held=consumes(holds))
    def settle_within(self, held: Hold) -> None:
        """The usual case: the usage is less than the hold."""
        half = Amount(NanoUsd(held.amount.cost // 2), held.amount.input_tokens, held.amount.output_tokens // 2)
        booked = self.booked[held.hold_id]
        if self._write(settle(held, half)):
            booked.state, booked.used = "settled", half

    @rule()
    def charge(self) -> None:
        """Exactly the holds with an expired lease are charged, in full."""
        expired = [entry for entry in self.booked.values() if entry.state == "held" and entry.lease_until <= self.now]
        assert len(self._write(charge_expired(self.now))) == len(expired)
        for entry in expired:
            entry.state, entry.used = "charged", entry.held.amount

    @rule(minutes=st.sampled_from([1, 14, 15, 12 * 60, 4 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @invariant()
    def the_ledger_is_consistent(self) -> None:
        """The accounts are the sums of the model's holds, and the ledger's audit finds nothing."""
        assert self.database.read_now(find_discrepancies()) == []
        stored = {row.key: row for row in self.database.read_now(_accounts)}
        for account_key, entries in self._by_account().items():
            row = stored[account_key]
            for side, states in (("held", {"held"}), ("spent", {"settled", "charged"})):
                total = sum((entry.taken for entry in entries if entry.state in states), NOTHING)
                booked = (getattr(row, f"{side}_{unit}") for unit in ("cost", "input_tokens", "output_tokens"))
                assert Amount(*booked) == total

    @invariant()
    def cutoffs_are_kept(self) -> None:
        """An account exceeds its cutoff at most by the usage of its requests above their holds."""
        for account_key, entries in self._by_account().items():
            taken = sum((entry.taken for entry in entries), NOTHING)
            over = [entry.taken - entry.held.amount for entry in entries]
            if account_key.startswith('["run"'):
                assert taken.input_tokens <= 60 + sum(max(excess.input_tokens, 0) for excess in over)
                assert taken.output_tokens <= 80 + sum(max(excess.output_tokens, 0) for excess in over)
            else:
                cutoff = 150 if account_key.startswith('["user"') else TENANT_CUTOFF
                assert taken.cost <= cutoff + sum(max(excess.cost, 0) for excess in over)

    @invariant()
    def views_agree(self) -> None:
        """The views have the current accounts, fullest first, and the current states of holds."""
        views = self.database.read_now(load_spending(tenant=None, now=self.now, limits=LIMITS))
        totals = [view.spent.cost + view.held.cost for view in views]
        assert totals == sorted(totals, reverse=True)
        for view in views:
            key = self._keys(view.tenant, view.user or "", "")[0 if view.user is None else 1]
            assert view.spent + view.held == self._taken(key)
            assert (view.limit, view.cutoff) == ((200, 240) if view.user is None else (150, 150))
        views_of_holds = self.database.read_now(
            lambda conn: [view for n in "123" for view in load_holds(f"r-{n}")(conn)]
        )
        assert {view.hold_id: view.state for view in views_of_holds} == {
            name: entry.state for name, entry in self.booked.items()
        }

    def _write(self, op: Operation[Any]) -> Any:
        return self.database.write_now(op)[0]

    def _keys(self, tenant: str, user: str, run: str) -> tuple[Key, ...]:
        local = self.now.astimezone(ZONE)
        return (tenant, f"{local:%Y-%m}"), (tenant, user, f"{local:%Y-%m-%d}"), (tenant, run)

    def _taken(self, key: Key) -> Amount:
        return sum((entry.taken for entry in self.booked.values() if key in entry.keys), NOTHING)

    def _by_account(self) -> dict[str, list[BookedHold]]:
        by_account: dict[str, list[BookedHold]] = {}
        for entry in self.booked.values():
            for account_key in entry.held.accounts:
                by_account.setdefault(account_key, []).append(entry)
        return by_account


def _accounts(conn: Connection) -> Sequence[Row[Any]]:
    return conn.execute(select(accounts)).all()


def test_the_ledger_agrees_with_its_model(tmp_path: Path) -> None:
    """After any sequence of holds, settlements and charges, the ledger agrees with the model."""
    empty = tmp_path / "empty.db"
    Database.open(str(empty)).close()
    numbers = itertools.count()

    class LedgerOnCopy(Ledger):
        """A copy of an empty store for each example, since creating tables takes longer than an example."""

        def __init__(self) -> None:
            super().__init__(Path(shutil.copy(empty, tmp_path / f"{next(numbers)}.db")))

    run_state_machine_as_test(LedgerOnCopy, settings=settings(max_examples=20, stateful_step_count=30, deadline=None))


@st.composite
def _similar_names(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Two pairs of names that are equal when joined by a separator; they may be the same pair."""
    separator = draw(st.sampled_from(["", " ", "/", ",", "\\", '"', '", "']))
    parts = draw(st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=5))
    cuts = [draw(st.integers(1, len(parts) - 1)) for _ in range(2)]
    return [(separator.join(parts[:cut]), separator.join(parts[cut:])) for cut in cuts]


@given(_similar_names())
def test_no_two_names_share_an_account(pairs: list[tuple[str, str]]) -> None:
    """Accounts have the same key exactly if they have the same scope and the same names in the same order."""
    windows = windows_of(datetime(2026, 3, 28, tzinfo=UTC), ZONE)
    (one, other), (first, second) = (
        [_keys_of(HoldRequest(name, name, tenant, 1, 1, None), windows) for tenant, name in pairs],
        pairs,
    )
    assert (one[0] == other[0]) == (first[0] == second[0])
    assert (one[1:] == other[1:]) == (first == second)
    assert {one[1], other[1]}.isdisjoint({one[2], other[2]})


def _keys_of(request: HoldRequest, windows: Mapping[CeilingScope, Window]) -> list[str]:
    return [row["key"] for row in _account_rows(request, windows)]
