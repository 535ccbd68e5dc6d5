"""People see a call as its tool validated it, and a call that has changed since is proposed again."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Tool
from pydantic_ai.messages import ToolCallPart

from handrail import (
    Answered,
    AwaitingApproval,
    Escalated,
    Runtime,
)
from handrail.testing import VirtualClock
from tests.runs.bank import LOST, TAKEN_OVER, Bank, decide_by_approver, governed, paused_run, requires_approval, states
from tests.runs.scripts import Script, calls, counts, says
from tests.runs.test_approvals import approvals, decide_all, irreversible, run_until_approval


@pytest.fixture
def bank(runtime: Runtime, clock: VirtualClock) -> Bank:
    return Bank(runtime, clock)


class Line(BaseModel):
    """A line of an order."""

    product: str
    count: int = 1


@dataclass
class Address:
    """Where it is sent."""

    city: str
    tags: set[str] = field(default_factory=lambda: {"b", "a"})


async def test_people_see_the_validated_arguments(runtime: Runtime) -> None:
    """An approval has every argument as the tool gets it: defaults, nested ones too, and converted values."""
    got: list[Any] = []

    async def order(lines: list[Line], to: Address, within: timedelta, gift: bool = False) -> str:
        got.append((lines, to, within, gift))
        return "ordered"

    script = Script(says(calls("order", lines=[{"product": "tea"}], to={"city": "Rome"}, within=3600)), counts(1))
    agent = governed(script, irreversible(order))
    paused = await paused_run(runtime, agent)
    assert paused.approvals[0].arguments == {
        "lines": [{"product": "tea", "count": 1}],
        "to": {"city": "Rome", "tags": ["a", "b"]},
        "within": "PT1H",
        "gift": False,
    }
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert got == [([Line(product="tea")], Address("Rome"), timedelta(hours=1), False)]


async def test_defaults_that_are_new_at_each_call(runtime: Runtime, bank: Bank) -> None:
    """A default that is made anew for each call, as an id or the time is, is executed as people saw it."""
    numbers = iter(range(100))

    async def pay(order: str, number: Annotated[int, Field(default_factory=lambda: next(numbers))]) -> str:
        return await bank.pay((order, number))

    agent = governed(Script(says(calls("pay", order="1")), counts(1)), irreversible(pay))
    paused = await paused_run(runtime, agent)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, [("1", paused.approvals[0].arguments["number"])])


def _deployed(bank: Bank, version: str) -> Tool[Any]:
    async def pay(order: str, amount: int = 5) -> str:
        return await bank.pay((order, amount))

    async def pay_more(order: str, amount: int = 500) -> str:
        return await bank.pay((order, amount))

    async def pay_renamed(number: str, amount: int = 5) -> str:
        return await bank.pay((number, amount))

    async def pay_with_currency(order: str, amount: int = 5, currency: str = "EUR") -> str:
        assert currency
        return await bank.pay((order, amount))

    async def pay_described(order: str, amount: int = 5) -> str:
        """Pays.

        Args:
            order: The order's number.
            amount: Now in dollars.
        """
        return await bank.pay((order, amount))

    versions = {
        "first": pay,
        "default": pay_more,
        "renamed": pay_renamed,
        "added": pay_with_currency,
        "described": pay_described,
    }
    return irreversible(versions[version], name="pay")


@pytest.mark.parametrize("requires_approval", [False, True])
@pytest.mark.parametrize(
    ("version", "arguments"),
    [
        ("default", {"order": "1", "amount": 500}),
        ("added", {"order": "1", "amount": 5, "currency": "EUR"}),
        ("described", {"order": "1", "amount": 5}),
    ],
)
async def test_a_call_that_a_deploy_changed_asks_again(
    runtime: Runtime, bank: Bank, version: str, arguments: dict[str, Any], requires_approval: bool
) -> None:
    """If the validated arguments or the tool's schema changed, the new call is proposed, and only that is executed."""
    script = Script(says(calls("pay", order="1")), counts(1))
    declared = [_deployed(bank, "first"), _deployed(bank, version)]
    if requires_approval:
        declared = [Tool(one.function, name="pay", requires_approval=True) for one in declared]
    paused = await run_until_approval(governed(script, declared[0]))
    await decide_by_approver(runtime, paused)
    assert paused.approvals[0].arguments == {"order": "1", "amount": 5}
    agent = governed(script, declared[1])
    again = await agent.resume(paused.facts.run_id)
    assert isinstance(again, AwaitingApproval)
    assert (bank.paid, again.approvals[0].arguments, again.approvals[0].round) == ([], arguments, 2)
    [old, _] = await approvals(runtime, paused.facts.run_id)
    assert (old.state, old.reason) == (
        "withdrawn",
        "the call, or its tool, has changed since it was approved; it was proposed again",
    )
    await decide_by_approver(runtime, again)
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert bank.paid == [("1", arguments["amount"])]
    assert await states(runtime, paused.facts.run_id) == ["withdrawn", "executed"]


async def test_arguments_that_a_deploy_made_invalid(runtime: Runtime, bank: Bank) -> None:
    """If the arguments do not fit the tool any more, nothing is executed, and the model proposes another call."""
    script = Script(says(calls("pay", order="1")), says(calls("pay", number="1")), counts(1))
    paused = await paused_run(runtime, governed(script, _deployed(bank, "first")))
    agent = governed(script, _deployed(bank, "renamed"))
    again = await agent.resume(paused.facts.run_id)
    assert isinstance(again, AwaitingApproval)
    assert (bank.paid, again.approvals[0].arguments) == ([], {"number": "1", "amount": 5})
    await decide_all(runtime, again)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, [("1", 5)])
    assert await states(runtime, paused.facts.run_id) == ["withdrawn", "executed"]


@pytest.mark.parametrize("version", ["default", "renamed"])
@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_deploy_after_the_effect(
    runtime: Runtime, clock: VirtualClock, bank: Bank, version: str, idempotent: bool
) -> None:
    """A call that was begun and has changed since is uncertain: it is neither proposed nor executed again."""

    async def pay(order: str, amount: int = 5) -> str:
        return await bank.pay((order, amount))

    script = Script(says(calls("pay", order="1")), counts(1))
    paused = await paused_run(runtime, governed(script, irreversible(pay, idempotent=idempotent)))
    bank.killed = True
    with pytest.raises(LOST):
        await governed(script, irreversible(pay, idempotent=idempotent)).resume(paused.facts.run_id)
    clock.advance(TAKEN_OVER)
    outcome = await governed(script, _deployed(bank, version)).resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, len(bank.paid)) == ("action_uncertain", 1)
    assert await states(runtime, paused.facts.run_id) == ["unknown_after_crash"]


async def test_arguments_that_are_not_json(runtime: Runtime, bank: Bank) -> None:
    """A call whose arguments are not JSON is not proposed: the model has to repeat it."""
    script = Script(says(ToolCallPart("pay", '{"order": "1"')), says(calls("pay", order="1")), counts(1))
    agent = governed(script, requires_approval(bank))
    paused = await run_until_approval(agent)
    assert paused.approvals[0].arguments == {"order": "1"}
    await decide_by_approver(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1"])
