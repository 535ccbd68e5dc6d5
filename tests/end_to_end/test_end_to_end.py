"""One thread through all five lessons."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from handrail import Answered, AwaitingApproval, Runtime, feedback, use_runtime
from handrail.ceilings.ledger import holds
from handrail.ceilings.ledger_queries import audit, load_holds
from handrail.evals.eval_set.model import freeze, load_set
from handrail.evals.from_production.from_run import add_case
from handrail.evals.gate.gate import NoBaseline, gate, set_baseline
from handrail.review.approvals.store import decide, list_approvals
from handrail.review.feedback import verdicts_of
from handrail.testing import VirtualClock
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_trace
from handrail.worker import run_due
from tests.end_to_end.shop import CANCEL, CASES, CHARGED_TWICE, COST, MENDED, PROMPT, WORSE, Shop, settings

ROLES = {"lead": ("mia",)}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    made.cases.write_text(CASES)
    return made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(shop: Shop, clock: VirtualClock) -> Iterator[Runtime]:
    opened = Runtime(settings(shop.folder, "handrail.db"), clock=clock)
    with use_runtime(opened):
        yield opened
    opened.close()


async def test_from_a_trace_to_a_gate_that_passes(runtime: Runtime, shop: Shop, clock: VirtualClock) -> None:
    """A production trace gets a verdict and becomes a case; the gate blocks a worse prompt, passes the mended one."""
    freeze(shop.cases, "the first cases", clock.now().date())
    agent = shop.agent(PROMPT)

    # A trace of production that no person judged yet.
    wrong = await agent.run(CANCEL, user="u-2", tenant="acme")
    assert isinstance(wrong, Answered)
    assert wrong.output.category == "other"

    # A person's verdict.
    run_id = wrong.facts.run_id
    await feedback(run_id, right=False, should={"category": "cancel"}, by="ann", note="they want to stop it")

    # An eval case, with its source, frozen anew with a reason.
    grown = await add_case(runtime, agent, run_id, why="customers stop orders in their own words", by="ann")
    assert grown.case.input == CANCEL
    assert grown.case.source.startswith(f"production run {run_id}, marked wrong by ann on 2026-01-01")
    assert len(load_set(shop.cases).cases) == 3
    [verdict] = await runtime.database.read(partial(verdicts_of, run_id=run_id))
    assert verdict.case_id == grown.case.id

    # The gate: nothing to compare with, then the agent of production, which gets two of three right.
    with pytest.raises(NoBaseline, match="no baseline"):
        await gate(runtime, agent)
    await set_baseline(runtime, agent, by="ann")

    # It blocks a worse prompt and passes the mended one.
    blocked = await gate(runtime, shop.agent(WORSE))
    assert (blocked.verdict.passed, blocked.verdict.newly_failing) == (False, ("charged-twice",))
    passed = await gate(runtime, shop.agent(MENDED))
    assert (passed.verdict.passed, passed.verdict.newly_passing) == (True, (grown.case.id,))
    assert len({blocked.agent_hash, passed.agent_hash, blocked.baseline.agent_hash}) == 3

    # Trials leave nothing behind for people, and every request of them was held for and settled.
    waiting = await runtime.database.read(partial(list_approvals, state="pending", tenant=None, limit=100, before=None))
    assert waiting == []
    held = await runtime.database.read(lambda conn: conn.execute(select(holds.c.state)).scalars().all())
    assert held == ["settled"] * len(shop.calls.read_text().split())
    assert await runtime.database.read(audit) == []


async def test_a_refund_from_the_question_to_the_money(runtime: Runtime, shop: Shop, clock: VirtualClock) -> None:
    """A run is held for, retried once more strictly, waits for a person, pays once, and its trace tells all of it."""
    asked = await shop.agent(PROMPT).run(CHARGED_TWICE, user="u-1", tenant="acme")
    assert isinstance(asked, AwaitingApproval)
    assert not shop.refunds.exists()

    clock.advance(12 * 60)
    [approval] = asked.approvals
    await runtime.database.write(decide(approval.approval_id, "approved", "mia", ROLES, "yes, twice", clock.now()))
    assert await run_due(runtime, lambda _name: shop.agent(PROMPT)) == 1
    assert shop.refunds.read_text().split() == [approval.approval_id]

    summary, spans = await runtime.database.read(lambda conn: load_trace(conn, asked.facts.trace_id, "acme"))
    [root] = span_tree(spans)
    assert [node.span.name for node in root.children] == [
        "chat shop-model",
        "validate output",
        "chat shop-model",
        "execute_tool refund",
        "invoke_agent shop",
    ]
    carried_on = ["await_approval refund", "execute_tool refund", "chat shop-model"]
    assert [node.span.name for node in root.children[-1].children] == carried_on
    chats = [span for span in spans if span.kind == "model"]
    assert [span.attempt for span in chats] == [1, 2, 1]
    assert all((span.held or 0) >= span.cost == COST for span in chats)
    [wait] = [span for span in spans if span.kind == "wait"]
    assert wait.duration_ns == 12 * 60 * 10**9
    assert summary.cost == 3 * COST

    held = await runtime.database.read(partial(load_holds, run_id=asked.facts.run_id))
    assert [hold.state for hold in held] == ["settled"] * 3
    assert await runtime.database.read(audit) == []
