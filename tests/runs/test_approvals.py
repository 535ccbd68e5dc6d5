"""A run waits for people and is resumed once they have decided; each approved action is executed at most once."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext, Tool
from pydantic_ai.messages import ToolReturnPart

from handrail import (
    Answered,
    AwaitingApproval,
    BadInput,
    Escalated,
    FellBack,
    NotFound,
    NotResumable,
    RunRequest,
    Runtime,
    govern,
    idempotency_key,
    tool,
)
from handrail.kernel.clock import from_unix_ns
from handrail.review.approvals.model import DECISION_PERIOD, Approval
from handrail.review.approvals.queries import load_approval, load_approvals
from handrail.review.approvals.store import begin, decide, expire
from handrail.runs.resume import take_over
from handrail.runs.store.queries import RunView, load_conversation, load_outcomes, load_run
from handrail.runs.store.runs import LEASE, TakenOver
from handrail.testing import VirtualClock, sandbox
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Count, Script, calls, counts, says

ROLES = {"lead": ("mia",)}
State = Literal["approved", "denied"]


class Till:
    """Records what was paid, and under which idempotency key."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.keys: list[str] = []

    def refund(self, cents: int) -> str:
        """Refunds an amount."""
        self.keys.append(idempotency_key())
        self.paid.append(cents)
        return f"paid {cents}"


@pytest.fixture
def till() -> Till:
    return Till()


def irreversible(function: Callable[..., Any], **options: Any) -> Tool[Any]:
    return tool(function, effect="irreversible", approver="role:lead", **options)


def governed(script: Script, *tools: Tool[Any], **options: Any) -> Any:
    return govern(Agent(script.model, output_type=Count, tools=tools), name="a", **options)


async def run_until_approval(agent: Any, **options: Any) -> AwaitingApproval:
    outcome = await agent.run("hi", user="u", **options)
    assert isinstance(outcome, AwaitingApproval)
    return outcome


async def decide_all(runtime: Runtime, paused: AwaitingApproval, to: State = "approved", note: str = "ok") -> None:
    for approval in paused.approvals:
        await runtime.database.write(decide(approval.approval_id, to, "mia", ROLES, note, runtime.clock.now()))


async def view(runtime: Runtime, run_id: str) -> RunView:
    return await runtime.database.read(load_run(run_id=run_id, now=runtime.clock.now()))


async def approvals(runtime: Runtime, run_id: str) -> Sequence[Approval]:
    return await runtime.database.read(load_approvals(run_id, runtime.clock.now()))


async def spans(runtime: Runtime, trace_id: str) -> list[Span]:
    _, trace_spans = await runtime.database.read(load_trace(trace_id, None))
    return trace_spans


async def test_approved(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """An approved action is executed once; the model gets its result, and the path is happy."""
    script = Script(says(calls("refund", cents=5)), counts(1))
    agent = governed(script, irreversible(till.refund))
    paused = await run_until_approval(agent)
    assert till.paid == []
    clock.advance(3_600)
    await decide_all(runtime, paused)
    clock.advance(60)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Answered)
    assert (outcome.output.count, outcome.path, till.paid) == (1, "happy", [5])
    assert till.keys == [paused.approvals[0].approval_id]
    [returned] = [part for part in script.requests[-1][-1].parts if isinstance(part, ToolReturnPart)]
    assert returned.content == "paid 5"
    run = await view(runtime, paused.facts.run_id)
    assert (run.status, run.path, run.requests) == ("answered", "happy", 2)
    outcomes = await runtime.database.read(load_outcomes(run_id=run.run_id))
    assert [row.type for row in outcomes] == ["awaiting_approval", "answered"]
    [approval] = await approvals(runtime, run.run_id)
    assert (approval.state, approval.result, approval.decided_by) == ("executed", "paid 5", "mia")


async def test_one_trace_across_the_wait(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A resumed run stays one trace: the wait has its own span, and the resumed part is below the root span."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), irreversible(till.refund))
    paused = await run_until_approval(agent)
    clock.advance(3_600)
    await decide_all(runtime, paused)
    clock.advance(60)
    outcome = await agent.resume(paused.facts.run_id)
    assert outcome.facts.trace_id == paused.facts.trace_id
    trace_spans = await spans(runtime, paused.facts.trace_id)
    [root] = [span for span in trace_spans if span.parent_id is None]
    [wait] = [span for span in trace_spans if span.kind == "wait"]
    assert (wait.name, wait.duration_ns) == ("await_approval refund", 3_600 * 10**9)
    assert from_unix_ns(wait.start_ns) == paused.approvals[0].proposed_at
    assert wait.attributes["handrail.approval.decided_by"] == "mia"
    [resumed] = [span for span in trace_spans if span.kind == "agent" and span is not root]
    assert (resumed.parent_id, resumed.attributes["handrail.run.round"]) == (root.span_id, 2)
    [executed] = [span for span in trace_spans if span.kind == "tool" and span.parent_id == resumed.span_id]
    assert executed.attributes["handrail.approval"] == "approved"
    assert wait.parent_id == resumed.span_id


async def test_denied(runtime: Runtime, till: Till) -> None:
    """A denied action is not executed; the model gets the reason and answers without it."""
    script = Script(says(calls("refund", cents=5)), counts(0))
    agent = governed(script, irreversible(till.refund))
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused, "denied", note="Send a voucher instead.")
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), outcome.path, till.paid) == (Answered, "happy", [])
    [returned] = [part for part in script.requests[-1][-1].parts if isinstance(part, ToolReturnPart)]
    assert "Send a voucher instead." in str(returned.content)


async def test_an_approval_expires(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A run whose approval expired is escalated, and the model is not called again."""
    agent = governed(Script(says(calls("refund", cents=5))), irreversible(till.refund))
    paused = await run_until_approval(agent)
    clock.advance(DECISION_PERIOD.total_seconds())
    assert await runtime.database.write(expire(paused.approvals[0].approval_id, clock.now())) == [True]
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, outcome.path, outcome.proposals[0].tool) == ("approval_expired", "human", "refund")
    assert till.paid == []


async def test_two_approvals_in_one_round(runtime: Runtime, till: Till) -> None:
    """Of two actions proposed together one may be denied; the run can be resumed only once both are decided."""
    agent = governed(
        Script(says(calls("refund", cents=5), calls("refund", cents=7)), counts(1)), irreversible(till.refund)
    )
    paused = await run_until_approval(agent)
    first, second = paused.approvals
    now = runtime.clock.now()
    await runtime.database.write(decide(first.approval_id, "denied", "mia", ROLES, None, now))
    with pytest.raises(NotResumable, match=second.approval_id):
        await agent.resume(paused.facts.run_id)
    assert (await view(runtime, paused.facts.run_id)).status == "awaiting_approval"
    await runtime.database.write(decide(second.approval_id, "approved", "mia", ROLES, None, now))
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert till.paid == [7]


async def test_a_second_round(runtime: Runtime, till: Till) -> None:
    """A resumed run may propose again: a second round with its own approvals, and totals that include the first."""
    script = Script(says(calls("refund", cents=5)), says(calls("refund", cents=7)), counts(2))
    agent = governed(script, irreversible(till.refund))
    first = await run_until_approval(agent)
    await decide_all(runtime, first)
    second = await agent.resume(first.facts.run_id)
    assert isinstance(second, AwaitingApproval)
    assert (second.approvals[0].round, till.paid, second.facts.requests) == (2, [5], 2)
    await decide_all(runtime, second)
    outcome = await agent.resume(first.facts.run_id)
    assert isinstance(outcome, Answered)
    assert (till.paid, outcome.facts.requests, outcome.facts.tools) == ([5, 7], 3, ("refund", "refund"))


async def test_concurrent_resumes(runtime: Runtime, till: Till) -> None:
    """Of two concurrent calls of `resume` one resumes the run, and the other raises NotResumable."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), irreversible(till.refund))
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    results = await asyncio.gather(*(agent.resume(paused.facts.run_id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Answered", "NotResumable"]
    assert till.paid == [5]
    with pytest.raises(NotResumable, match="is answered and waits for nobody"):
        await agent.resume(paused.facts.run_id)


async def test_runs_that_cannot_be_resumed(runtime: Runtime) -> None:
    """An answered run, an unknown one and another agent's cannot be resumed."""
    agent = governed(Script(counts(1)))
    outcome = await agent.run("hi", user="u")
    with pytest.raises(NotResumable, match="waits for nobody"):
        await agent.resume(outcome.facts.run_id)
    with pytest.raises(NotFound):
        await agent.resume("run_none")
    with pytest.raises(BadInput, match="belongs to agent a, not to b"):
        await govern(Agent(Script().model), name="b").resume(outcome.facts.run_id)
    assert (await view(runtime, outcome.facts.run_id)).status == "answered"


async def test_resumed_by_another_process(tmp_path: Path, clock: VirtualClock, till: Till) -> None:
    """Another process resumes a run from the store alone: its conversation, tools and spending continue."""
    with sandbox(tmp_path, store="shared.db", clock=clock):
        agent = governed(
            Script(counts(1), says(calls("find_order"), calls("refund", cents=5))),
            irreversible(till.refund),
            _find_order(),
        )
        await agent.run("before", user="u", conversation_id="c-1")
        paused = await run_until_approval(agent, conversation_id="c-1")
    script = Script(counts(3), counts(4))
    with sandbox(tmp_path, store="shared.db", clock=clock) as later:
        agent = governed(script, irreversible(till.refund), _find_order())
        await decide_all(later, paused)
        outcome = await agent.resume(paused.facts.run_id)
        assert isinstance(outcome, Answered)
        assert (till.paid, outcome.facts.tools, outcome.facts.requests) == ([5], ("find_order", "refund"), 2)
        assert script.prompts() == ["before", "hi"]
        bodies = await later.database.read(load_conversation("default", "c-1"))
        assert len(bodies) == 2
        await agent.run("after", user="u", conversation_id="c-1")
    assert script.prompts() == ["before", "hi", "after"]


def _find_order() -> Tool[Any]:
    def find_order() -> int:
        return 1

    return tool(find_order, effect="reads")


async def test_deps_of_a_resumed_run(runtime: Runtime) -> None:
    """A resumed run gets its deps from the agent's factory; without one, `resume` raises BadInput."""
    inputs: list[str] = []

    def make_deps(request: RunRequest) -> str:
        inputs.append(str(request.input))
        return "desk"

    def refund(ctx: RunContext[str]) -> str:
        return ctx.deps

    def agent_with(**options: Any) -> Any:
        script = Script(says(calls("refund")), says("done"))
        return govern(Agent(script.model, deps_type=str, tools=[irreversible(refund)]), name="a", **options)

    agent = agent_with(deps=make_deps)
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    assert isinstance(await agent.resume(paused.facts.run_id), Answered)
    assert inputs == ["hi", "hi"]
    bare = agent_with()
    paused = await run_until_approval(bare, deps="given")
    await decide_all(runtime, paused)
    with pytest.raises(BadInput, match="was given its deps"):
        await bare.resume(paused.facts.run_id)
    assert isinstance(await bare.resume(paused.facts.run_id, deps="given again"), Answered)


async def test_an_action_that_fails(runtime: Runtime) -> None:
    """An action that failed midway may have happened: the run is escalated, and the action is never executed again."""

    def refund(cents: int) -> str:
        raise ConnectionError(f"the bank hung up on {cents}")

    agent = governed(Script(says(calls("refund", cents=5))), irreversible(refund), fallback=_zero)
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert outcome.reason == "action_uncertain"
    assert "the bank hung up" in outcome.detail
    [approval] = await approvals(runtime, paused.facts.run_id)
    assert approval.state == "failed"


async def test_the_tool_raises_model_retry(runtime: Runtime) -> None:
    """A tool's ModelRetry reaches the model: the run goes on, and the action counts as not executed."""

    def refund(cents: int) -> str:
        raise ModelRetry(f"nothing is left of {cents}")

    script = Script(says(calls("refund", cents=5)), counts(0))
    agent = governed(script, irreversible(refund))
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), outcome.path) == (Answered, "happy")
    assert "nothing is left" in str(script.requests[-1][-1])
    [approval] = await approvals(runtime, paused.facts.run_id)
    assert approval.state == "withdrawn"
    assert "nothing is left of 5" in (approval.reason or "")


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_process_that_died_while_executing(
    runtime: Runtime, clock: VirtualClock, till: Till, idempotent: bool
) -> None:
    """After a crash during an action, an idempotent one is executed again with the same key; any other is escalated."""
    agent = governed(
        Script(says(calls("refund", cents=5)), counts(1)), irreversible(till.refund, idempotent=idempotent)
    )
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    [approval] = paused.approvals
    # The state that a process leaves when it dies there: the execution has begun.
    await runtime.database.write(begin(approval.approval_id, approval.digest, clock.now()))
    clock.advance(LEASE.total_seconds())
    outcome = await agent.resume(paused.facts.run_id)
    stored = await runtime.database.read(load_approval(approval.approval_id, clock.now()))
    if idempotent:
        assert (type(outcome), till.paid, till.keys) == (Answered, [5], [approval.approval_id])
        assert stored.state == "executed"
    else:
        assert isinstance(outcome, Escalated)
        assert (outcome.reason, till.paid, stored.state) == ("action_uncertain", [], "unknown_after_crash")


async def test_the_model_fails_after_the_action(runtime: Runtime, till: Till) -> None:
    """If the model fails after the action, the fallback answers, and the action was executed once."""
    from pydantic_ai.exceptions import ModelHTTPError

    script = Script(says(calls("refund", cents=5)), ModelHTTPError(503, "m"))
    agent = governed(script, irreversible(till.refund), fallback=_zero)
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert (type(outcome), till.paid) == (FellBack, [5])


async def test_the_retry_survives_the_wait(runtime: Runtime, till: Till) -> None:
    """A retry that was used before the approval is not granted again after it."""
    script = Script(counts("many"), says(calls("refund", cents=5)), counts("many"))
    agent = governed(script, irreversible(till.refund), fallback=_zero)
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    outcome = await agent.resume(paused.facts.run_id)
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "output_malformed"


async def _zero(_request: RunRequest) -> Count:
    return Count(count=0)


def test_no_idempotency_key_outside_an_action() -> None:
    """Outside an approved action there is no idempotency key."""
    with pytest.raises(BadInput, match="no approved action"):
        idempotency_key()


async def test_a_long_action_keeps_its_lease(runtime: Runtime, clock: VirtualClock) -> None:
    """An action that takes longer than its lease renews it, and so does its run: neither is taken over."""
    began, finish = asyncio.Event(), asyncio.Event()

    async def refund() -> str:
        began.set()
        await finish.wait()
        return "paid"

    agent = governed(Script(says(calls("refund")), counts(1)), irreversible(refund))
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    running = asyncio.ensure_future(agent.resume(paused.facts.run_id))
    await began.wait()
    [before] = await approvals(runtime, paused.facts.run_id)
    async with asyncio.timeout(30):
        while not clock.sleeping:
            await runtime.database.read(lambda _conn: None)
        clock.advance(LEASE.total_seconds() / 2)
        while (await approvals(runtime, paused.facts.run_id)) == [before]:
            await runtime.database.read(lambda _conn: None)
    [after] = await approvals(runtime, paused.facts.run_id)
    assert before.executing_until is not None
    assert after.executing_until is not None
    assert (after.executing_until - before.executing_until).total_seconds() == LEASE.total_seconds() / 2
    finish.set()
    assert isinstance(await running, Answered)


async def test_a_process_whose_run_was_taken_over(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A process whose run was taken over can neither call the model nor end the run."""

    async def refund(cents: int) -> str:
        # No lease is renewed while the whole process is suspended.
        now = clock.now() + LEASE
        await runtime.database.write(take_over(paused.facts.run_id, now))
        return till.refund(cents)

    script = Script(says(calls("refund", cents=5)), counts(1))
    agent = governed(script, irreversible(refund))
    paused = await run_until_approval(agent)
    await decide_all(runtime, paused)
    with pytest.raises(TakenOver, match="another process has taken it over"):
        await agent.resume(paused.facts.run_id)
    assert len(script.requests) == 1
    outcomes = await runtime.database.read(load_outcomes(run_id=paused.facts.run_id))
    assert [row.type for row in outcomes] == ["awaiting_approval"]
    [approval] = await approvals(runtime, paused.facts.run_id)
    assert (approval.state, till.paid) == ("unknown_after_crash", [5])
