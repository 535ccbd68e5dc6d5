"""All features together: from a production run to a gate, and from a message to a refund."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from handrail import Answered, AwaitingApproval, Runtime, feedback, use_runtime
from handrail.ceilings.ledger_queries import find_discrepancies, load_holds
from handrail.ceilings.tables import holds
from handrail.evals.errors import NoBaseline
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import load_eval_set
from handrail.evals.from_production.from_run import add_case
from handrail.evals.gate.baseline import create_baseline
from handrail.evals.gate.gate import run_gate
from handrail.review.approvals.queries import list_approvals
from handrail.review.approvals.store import decide
from handrail.review.feedback import load_feedback
from handrail.testing import VirtualClock
from handrail.traces.analysis.tree import span_tree
from handrail.traces.store.spans import load_trace
from handrail.worker import run_due_jobs
from tests.end_to_end.shop import CANCEL, CASES, CHARGED_TWICE, COST, FIXED, PROMPT, WORSE, Shop, settings

ROLES = {"lead": ("mia",)}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.cases.write_text(CASES)
    return shop


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(shop: Shop, clock: VirtualClock) -> Iterator[Runtime]:
    runtime = Runtime(settings(shop.folder, "handrail.db"), clock=clock)
    with use_runtime(runtime):
        yield runtime
    runtime.close()


async def test_from_a_production_run_to_a_passing_gate(runtime: Runtime, shop: Shop, clock: VirtualClock) -> None:
    """A production run gets feedback and becomes a case; the gate blocks a worse prompt and passes the fixed one."""
    freeze(shop.cases, "the first cases", clock.now().date())
    agent, spec = shop.agent(PROMPT), shop.spec(PROMPT)

    # A production run without feedback.
    wrong = await agent.run(CANCEL, user="u-2", tenant="acme")
    assert isinstance(wrong, Answered)
    assert wrong.output.category == "other"

    # A person's feedback.
    run_id = wrong.facts.run_id
    await feedback(run_id, right=False, expected={"category": "cancel"}, by="ann", note="they want to stop it")

    # A case made from the run, with its source; the set is frozen again, with a reason.
    added = await add_case(runtime, spec, run_id, why="customers stop orders in their own words", by="ann")
    assert added.case.input == CANCEL
    assert added.case.source.startswith(f"production run {run_id}, marked wrong by ann on 2026-01-01")
    assert len(load_eval_set(shop.cases).cases) == 3
    [stored] = await runtime.database.read(load_feedback(run_id=run_id))
    assert stored.case_id == added.case.id

    # The gate: no baseline at first, then that of the production agent, which gets two of three cases right.
    with pytest.raises(NoBaseline, match="no baseline"):
        await run_gate(runtime, spec)
    await create_baseline(runtime, spec, by="ann")

    # It blocks a worse prompt and passes the fixed one.
    blocked = await run_gate(runtime, shop.spec(WORSE))
    assert (blocked.verdict.passed, blocked.verdict.newly_failing) == (False, ("charged-twice",))
    passed = await run_gate(runtime, shop.spec(FIXED))
    assert (passed.verdict.passed, passed.verdict.newly_passing) == (True, (added.case.id,))
    assert len({blocked.agent_hash, passed.agent_hash, blocked.baseline.agent_hash}) == 3

    # Trials leave no approvals behind, and each of their requests was held and settled.
    waiting = await runtime.database.read(
        list_approvals(runtime.clock.now(), state="pending", tenant=None, limit=100, before=None)
    )
    assert waiting == []
    held = await runtime.database.read(lambda conn: conn.execute(select(holds.c.state)).scalars().all())
    assert held == ["settled"] * len(shop.calls.read_text().split())
    assert await runtime.database.read(find_discrepancies()) == []


async def test_from_a_message_to_a_refund(runtime: Runtime, shop: Shop, clock: VirtualClock) -> None:
    """A run is retried once, waits for an approval and pays once, and its trace and holds show all of it."""
    paused = await shop.agent(PROMPT).run(CHARGED_TWICE, user="u-1", tenant="acme")
    assert isinstance(paused, AwaitingApproval)
    assert not shop.refunds.exists()

    clock.advance(12 * 60)
    [approval] = paused.approvals
    await runtime.database.write(decide(approval.approval_id, "approved", "mia", ROLES, "yes, twice", clock.now()))
    assert await run_due_jobs(runtime, lambda _name: shop.agent(PROMPT)) == 1
    assert shop.refunds.read_text().split() == [approval.approval_id]

    summary, spans = await runtime.database.read(load_trace(paused.facts.trace_id, "acme"))
    [root] = span_tree(spans)
    assert [node.span.name for node in root.children] == [
        "chat shop-model",
        "validate output",
        "chat shop-model",
        "execute_tool refund",
        "invoke_agent shop",
    ]
    resumed = ["await_approval refund", "execute_tool refund", "chat shop-model"]
    assert [node.span.name for node in root.children[-1].children] == resumed
    chats = [span for span in spans if span.kind == "model"]
    assert [span.attempt for span in chats] == [1, 2, 1]
    assert all((span.held or 0) >= span.cost == COST for span in chats)
    [wait] = [span for span in spans if span.kind == "wait"]
    assert wait.duration_ns == 12 * 60 * 10**9
    assert summary.cost == 3 * COST

    held = await runtime.database.read(load_holds(run_id=paused.facts.run_id))
    assert [hold.state for hold in held] == ["settled"] * 3
    assert await runtime.database.read(find_discrepancies()) == []
