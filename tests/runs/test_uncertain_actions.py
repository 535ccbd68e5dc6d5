"""What becomes of actions that may have happened, and of those that must not be executed any more."""

import asyncio
from typing import Any

import pytest
from pydantic_ai import ModelRetry
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ToolFailed

from handrail import (
    Answered,
    BadInput,
    Escalated,
    NotResumable,
    Runtime,
    tool,
)
from handrail.review.approvals.model import EXECUTION_LEASE
from handrail.review.approvals.store import settle_uncertain
from handrail.runs.errors import ResumeFailed
from handrail.runs.store.runs import LEASE
from handrail.testing import VirtualClock
from tests.runs.bank import (
    LOST,
    TAKEN_OVER,
    Bank,
    governed,
    paused_run,
    returned,
    states,
)
from tests.runs.scripts import Script, calls, counts, says
from tests.runs.test_approvals import ROLES, approvals, irreversible


@pytest.fixture
def bank(runtime: Runtime, clock: VirtualClock) -> Bank:
    return Bank(runtime, clock)


async def test_one_of_several_actions_fails(runtime: Runtime, bank: Bank) -> None:
    """While one action is uncertain the others are not executed; once it is settled, the run goes on with them."""

    async def pay(order: str) -> str:
        if order == "1" and not bank.paid:
            await bank.pay(order)
            raise RuntimeError("the bank hung up")
        return await bank.pay(order)

    script = Script(says(*(calls("pay", order=order) for order in "12")), counts(1))
    agent = governed(script, irreversible(pay))
    paused = await paused_run(runtime, agent)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert bank.paid == ["1"]
    assert await states(runtime, paused.facts.run_id) == ["failed", "approved"]
    now = runtime.clock.now()
    await runtime.database.write(settle_uncertain(paused.approvals[0].approval_id, True, "mia", ROLES, "yes", now))
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1", "2"])
    assert returned(script)[0] == "This action was carried out, but what it returned is not known."


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("killed", [True, False])
async def test_a_person_settles_an_uncertain_action(
    runtime: Runtime, clock: VirtualClock, bank: Bank, happened: bool, killed: bool
) -> None:
    """Whether its process died or the tool raised: the run goes on, and the action is executed again if it did not."""

    async def pay(order: str) -> str:
        result = await bank.pay(order)
        if len(bank.paid) == 1:
            raise RuntimeError("the bank hung up")
        return result

    script = Script(says(calls("pay", order="1")), counts(1))
    agent = governed(script, irreversible(pay))
    paused = await paused_run(runtime, agent)
    run_id, [approval] = paused.facts.run_id, paused.approvals
    bank.killed = killed
    if killed:
        with pytest.raises(LOST):
            await agent.resume(run_id)
        clock.advance(TAKEN_OVER)
        bank.killed = False
    outcome = await agent.resume(run_id)
    assert isinstance(outcome, Escalated)
    clock.advance(60)
    await runtime.database.write(settle_uncertain(approval.approval_id, happened, "mia", ROLES, None, clock.now()))
    outcome = await agent.resume(run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1"] if happened else ["1", "1"])
    assert set(bank.keys) == {approval.approval_id}
    [stored] = await approvals(runtime, run_id)
    assert (stored.state, stored.attempts) == ("executed", 1 if happened else 2)


async def test_a_bug_in_an_approved_tool(runtime: Runtime, clock: VirtualClock, bank: Bank) -> None:
    """A programming error reaches its author; once the action is settled, the run goes on."""

    async def pay(order: str) -> str:
        result = await bank.pay(order)
        if bank.paid == ["1"]:
            raise TypeError("a bug")
        return result

    agent = governed(Script(says(*(calls("pay", order=order) for order in "12")), counts(1)), irreversible(pay))
    paused = await paused_run(runtime, agent)
    run_id, first = paused.facts.run_id, paused.approvals[0]
    with pytest.raises(TypeError, match="a bug"):
        await agent.resume(run_id)
    assert await states(runtime, run_id) == ["failed", "approved"]
    clock.advance(60)
    await runtime.database.write(settle_uncertain(first.approval_id, False, "mia", ROLES, None, clock.now()))
    outcome = await agent.resume(run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1", "1", "2"])
    with pytest.raises(NotResumable):
        await agent.resume(run_id)


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("answer", [True, False, None, RuntimeError("no answer")])
async def test_a_tool_reconciles_an_interrupted_action(
    runtime: Runtime, clock: VirtualClock, bank: Bank, answer: Any, asynchronous: bool
) -> None:
    """After a crash and the execution's lease `reconcile` is asked by key and arguments; else a person is."""
    asked: list[Any] = []

    def reconcile(key: str, arguments: Any) -> Any:
        asked.append((key, dict(arguments)))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reconcile_later(key: str, arguments: Any) -> Any:
        await asyncio.sleep(0)
        return reconcile(key, arguments)

    async def pay(order: str) -> str:
        return await bank.pay(order)

    script = Script(says(calls("pay", order="1")), counts(1))
    agent = governed(script, irreversible(pay, reconcile=reconcile_later if asynchronous else reconcile))
    paused = await paused_run(runtime, agent)
    bank.killed = True
    with pytest.raises(LOST):
        await agent.resume(paused.facts.run_id)
    bank.killed = False
    clock.advance(EXECUTION_LEASE.total_seconds())
    outcome = await agent.resume(paused.facts.run_id)
    assert asked == [(paused.approvals[0].approval_id, {"order": "1"})]
    [stored] = await approvals(runtime, paused.facts.run_id)
    if isinstance(answer, bool):
        assert (type(outcome), bank.paid) == (Answered, ["1"] if answer else ["1", "1"])
        assert (stored.state, stored.settled_by, stored.happened) == ("executed", None, answer)
    else:
        assert isinstance(outcome, Escalated)
        assert (stored.state, bank.paid) == ("unknown_after_crash", ["1"])


@pytest.mark.parametrize("happened", [True, False])
async def test_a_tool_reconciles_its_failure(runtime: Runtime, bank: Bank, happened: bool) -> None:
    """If the tool raised, the run goes on where `reconcile` says that it happened; otherwise a person decides."""

    async def pay(order: str) -> str:
        await bank.pay(order)
        raise TimeoutError("no answer from the bank")

    script = Script(says(calls("pay", order="1")), counts(1))
    agent = governed(script, irreversible(pay, reconcile=lambda _key, _arguments: happened))
    paused = await paused_run(runtime, agent)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered if happened else Escalated, ["1"])
    assert await states(runtime, paused.facts.run_id) == ["executed" if happened else "failed"]


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("answer", [True, False, "paid by hand", ""])
async def test_an_action_that_is_not_valid_any_more(
    runtime: Runtime, bank: Bank, answer: Any, asynchronous: bool
) -> None:
    """Unless `still_valid` returns True right before the execution, nothing is executed, and the model reads why."""
    asked: list[Any] = []

    def still_valid(arguments: Any) -> Any:
        asked.append(dict(arguments))
        return answer

    async def still_valid_later(arguments: Any) -> Any:
        return still_valid(arguments)

    async def pay(order: str) -> str:
        return await bank.pay(order)

    script = Script(says(calls("pay", order="1")), counts(1))
    agent = governed(script, irreversible(pay, still_valid=still_valid_later if asynchronous else still_valid))
    paused = await paused_run(runtime, agent)
    assert asked == []
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Answered)
    assert asked == [{"order": "1"}]
    [stored] = await approvals(runtime, paused.facts.run_id)
    [content] = returned(script)
    if answer is True:
        assert (bank.paid, stored.state, content) == (["1"], "executed", "paid 1")
    else:
        reason = answer or "it is not valid any more"
        assert (bank.paid, stored.state, stored.reason) == ([], "withdrawn", reason)
        assert reason in content


async def test_a_precondition_that_cannot_be_checked(runtime: Runtime, clock: VirtualClock, bank: Bank) -> None:
    """If `still_valid` raises, the approved action is kept, and a later resume executes it."""
    answers: list[Any] = [RuntimeError("no connection"), True]

    def still_valid(_arguments: Any) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async def pay(order: str) -> str:
        return await bank.pay(order)

    agent = governed(Script(says(calls("pay", order="1")), counts(1)), irreversible(pay, still_valid=still_valid))
    paused = await paused_run(runtime, agent)
    with pytest.raises(ResumeFailed, match="still_valid raised RuntimeError: no connection"):
        await agent.resume(paused.facts.run_id)
    assert (await states(runtime, paused.facts.run_id), bank.paid) == (["approved"], [])
    clock.advance(LEASE.total_seconds())
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), bank.paid) == (Answered, ["1"])


@pytest.mark.parametrize(
    "signal",
    [ModelRetry("not so"), ToolFailed("not so"), ApprovalRequired(), CallDeferred()],
    ids=lambda s: type(s).__name__,
)
async def test_a_tool_that_does_not_act(runtime: Runtime, signal: Exception) -> None:
    """An approved tool that answers the model or people instead of acting leaves an action that was not executed."""

    def pay(order: str) -> str:
        assert order
        raise signal

    agent = governed(Script(says(calls("pay", order="1")), counts(1)), irreversible(pay))
    paused = await paused_run(runtime, agent)
    await agent.resume(paused.facts.run_id)
    stored = (await approvals(runtime, paused.facts.run_id))[0]
    assert stored.state == "withdrawn"
    assert (stored.reason or "").startswith(f"the tool did not act: {type(signal).__name__}")


@pytest.mark.parametrize("checks", [{"reconcile": lambda *_: True}, {"still_valid": lambda _: True}])
def test_declarations_of_checks(checks: dict[str, Any]) -> None:
    """A tool that only reads has nothing to reconcile and no precondition."""
    with pytest.raises(BadInput, match="it only reads"):
        tool(len, effect="reads", **checks)
    assert tool(len, effect="writes", **checks).name == "len"
