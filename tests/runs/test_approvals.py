"""A run that waits for people, and is carried on once they decided: each approved action is executed at most once."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
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
from handrail.review.approvals.model import EXPIRES, Approval
from handrail.review.approvals.store import approvals_of, begin, decide, expire, load_approval
from handrail.runs.resume import take_over
from handrail.runs.store.runs import LEASE, RunView, TakenOver, load_conversation, load_outcomes, load_run
from handrail.testing import VirtualClock, sandbox
from handrail.traces.model import Span
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Count, Script, calls, counts, says

ROLES = {"lead": ("mia",)}
Verdict = Literal["approved", "denied"]


class Till:
    """What is left in it tells whether money was paid, and under which key."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.keys: list[str] = []

    def refund(self, cents: int) -> str:
        """Gives money back."""
        self.keys.append(idempotency_key())
        self.paid.append(cents)
        return f"paid {cents}"


@pytest.fixture
def till() -> Till:
    return Till()


def declared(pay: Callable[..., Any], **options: Any) -> Tool[Any]:
    return tool(pay, effect="irreversible", approver="role:lead", **options)


def governed(script: Script, *tools: Tool[Any], **options: Any) -> Any:
    return govern(Agent(script.model, output_type=Count, tools=tools), name="a", **options)


async def waiting(agent: Any, **options: Any) -> AwaitingApproval:
    outcome = await agent.run("hi", user="u", **options)
    assert isinstance(outcome, AwaitingApproval)
    return outcome


async def decided(runtime: Runtime, found: AwaitingApproval, verdict: Verdict = "approved", note: str = "ok") -> None:
    for each in found.approvals:
        await runtime.database.write(decide(each.approval_id, verdict, "mia", ROLES, note, runtime.clock.now()))


async def view(runtime: Runtime, run_id: str) -> RunView:
    return await runtime.database.read(partial(load_run, run_id=run_id, now=runtime.clock.now()))


async def approvals(runtime: Runtime, run_id: str) -> Sequence[Approval]:
    return await runtime.database.read(partial(approvals_of, run_id=run_id))


async def spans(runtime: Runtime, trace_id: str) -> list[Span]:
    _, found = await runtime.database.read(lambda conn: load_trace(conn, trace_id, None))
    return found


async def test_approved(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """An approved action is executed once and the model hears its result; the run counts as happy, its wait apart."""
    script = Script(says(calls("refund", cents=5)), counts(1))
    agent = governed(script, declared(till.refund))
    asked = await waiting(agent)
    assert till.paid == []
    clock.advance(3_600)
    await decided(runtime, asked)
    clock.advance(60)
    outcome = await agent.resume(asked.facts.run_id)
    assert isinstance(outcome, Answered)
    assert (outcome.output.count, outcome.path, till.paid) == (1, "happy", [5])
    assert till.keys == [asked.approvals[0].approval_id]
    [returned] = [part for part in script.asked[-1][-1].parts if isinstance(part, ToolReturnPart)]
    assert returned.content == "paid 5"
    run = await view(runtime, asked.facts.run_id)
    assert (run.status, run.path, run.requests) == ("answered", "happy", 2)
    outcomes = await runtime.database.read(partial(load_outcomes, run_id=run.run_id))
    assert [each.type for each in outcomes] == ["awaiting_approval", "answered"]
    [approval] = await approvals(runtime, run.run_id)
    assert (approval.state, approval.result, approval.decided_by) == ("executed", "paid 5", "mia")


async def test_the_trace_goes_on(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A run that is carried on stays one trace: the wait is a span of its own, what follows hangs below the root."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), declared(till.refund))
    asked = await waiting(agent)
    clock.advance(3_600)
    await decided(runtime, asked)
    clock.advance(60)
    outcome = await agent.resume(asked.facts.run_id)
    assert outcome.facts.trace_id == asked.facts.trace_id
    found = await spans(runtime, asked.facts.trace_id)
    [root] = [span for span in found if span.parent_id is None]
    [wait] = [span for span in found if span.kind == "wait"]
    assert (wait.name, wait.duration_ns) == ("await_approval refund", 3_600 * 10**9)
    assert from_unix_ns(wait.start_ns) == asked.approvals[0].proposed_at
    assert wait.attributes["handrail.approval.decided_by"] == "mia"
    [again] = [span for span in found if span.kind == "agent" and span is not root]
    assert (again.parent_id, again.attributes["handrail.run.round"]) == (root.span_id, 2)
    [executed] = [span for span in found if span.kind == "tool" and span.parent_id == again.span_id]
    assert executed.attributes["handrail.approval"] == "approved"
    assert wait.parent_id == again.span_id


async def test_denied(runtime: Runtime, till: Till) -> None:
    """A denied action is not executed; the model hears why and answers without it."""
    script = Script(says(calls("refund", cents=5)), counts(0))
    agent = governed(script, declared(till.refund))
    asked = await waiting(agent)
    await decided(runtime, asked, "denied", note="Send a voucher instead.")
    outcome = await agent.resume(asked.facts.run_id)
    assert (type(outcome), outcome.path, till.paid) == (Answered, "happy", [])
    [returned] = [part for part in script.asked[-1][-1].parts if isinstance(part, ToolReturnPart)]
    assert "Send a voucher instead." in str(returned.content)


async def test_nobody_decided_in_time(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A run whose approval expired ends with a person, and the model is not asked again."""
    agent = governed(Script(says(calls("refund", cents=5))), declared(till.refund))
    asked = await waiting(agent)
    clock.advance(EXPIRES.total_seconds())
    assert await runtime.database.write(expire(asked.approvals[0].approval_id, clock.now())) == [True]
    outcome = await agent.resume(asked.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, outcome.path, outcome.proposals[0].tool) == ("approval_expired", "human", "refund")
    assert till.paid == []


async def test_asked_twice_in_one_round(runtime: Runtime, till: Till) -> None:
    """Of two actions asked for together one may be denied; the run goes on when both are decided, and not before."""
    agent = governed(Script(says(calls("refund", cents=5), calls("refund", cents=7)), counts(1)), declared(till.refund))
    asked = await waiting(agent)
    first, second = asked.approvals
    now = runtime.clock.now()
    await runtime.database.write(decide(first.approval_id, "denied", "mia", ROLES, None, now))
    with pytest.raises(NotResumable, match=second.approval_id):
        await agent.resume(asked.facts.run_id)
    assert (await view(runtime, asked.facts.run_id)).status == "awaiting_approval"
    await runtime.database.write(decide(second.approval_id, "approved", "mia", ROLES, None, now))
    assert isinstance(await agent.resume(asked.facts.run_id), Answered)
    assert till.paid == [7]


async def test_asking_again(runtime: Runtime, till: Till) -> None:
    """A run that was carried on may ask again: a second round with approvals of its own, counted on from the first."""
    script = Script(says(calls("refund", cents=5)), says(calls("refund", cents=7)), counts(2))
    agent = governed(script, declared(till.refund))
    first = await waiting(agent)
    await decided(runtime, first)
    second = await agent.resume(first.facts.run_id)
    assert isinstance(second, AwaitingApproval)
    assert (second.approvals[0].round, till.paid, second.facts.requests) == (2, [5], 2)
    await decided(runtime, second)
    outcome = await agent.resume(first.facts.run_id)
    assert isinstance(outcome, Answered)
    assert (till.paid, outcome.facts.requests, outcome.facts.tools) == ([5, 7], 3, ("refund", "refund"))


async def test_two_resume_at_once(runtime: Runtime, till: Till) -> None:
    """Of two that carry a run on at once one does, the other is told that it is under way."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), declared(till.refund))
    asked = await waiting(agent)
    await decided(runtime, asked)
    found = await asyncio.gather(*(agent.resume(asked.facts.run_id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["Answered", "NotResumable"]
    assert till.paid == [5]
    with pytest.raises(NotResumable, match="is answered and waits for nobody"):
        await agent.resume(asked.facts.run_id)


async def test_a_run_that_never_waited(runtime: Runtime) -> None:
    """An answered run, an unknown one and another agent's are not carried on."""
    agent = governed(Script(counts(1)))
    outcome = await agent.run("hi", user="u")
    with pytest.raises(NotResumable, match="waits for nobody"):
        await agent.resume(outcome.facts.run_id)
    with pytest.raises(NotFound):
        await agent.resume("run_none")
    with pytest.raises(BadInput, match="of agent a, not of b"):
        await govern(Agent(Script().model), name="b").resume(outcome.facts.run_id)
    assert (await view(runtime, outcome.facts.run_id)).status == "answered"


async def test_in_another_process(tmp_path: Path, clock: VirtualClock, till: Till) -> None:
    """A run is carried on where nothing but the store is known: its conversation, its tools, its spending go on."""
    with sandbox(tmp_path, store="shared.db", clock=clock):
        agent = governed(
            Script(counts(1), says(calls("look"), calls("refund", cents=5))), declared(till.refund), _look()
        )
        await agent.run("before", user="u", conversation_id="c-1")
        asked = await waiting(agent, conversation_id="c-1")
    script = Script(counts(3), counts(4))
    with sandbox(tmp_path, store="shared.db", clock=clock) as later:
        agent = governed(script, declared(till.refund), _look())
        await decided(later, asked)
        outcome = await agent.resume(asked.facts.run_id)
        assert isinstance(outcome, Answered)
        assert (till.paid, outcome.facts.tools, outcome.facts.requests) == ([5], ("look", "refund"), 2)
        assert script.prompts() == ["before", "hi"]
        said = await later.database.read(lambda conn: load_conversation(conn, "default", "c-1"))
        assert len(said) == 2
        await agent.run("after", user="u", conversation_id="c-1")
    assert script.prompts() == ["before", "hi", "after"]


def _look() -> Tool[Any]:
    def look() -> int:
        return 1

    return tool(look, effect="reads")


async def test_deps_are_made_anew(runtime: Runtime) -> None:
    """What a run needs is made anew by the agent's factory when it is carried on; without one it is refused."""
    made: list[str] = []

    def make(request: RunRequest) -> str:
        made.append(str(request.input))
        return "desk"

    def refund(ctx: RunContext[str]) -> str:
        return ctx.deps

    def agent_with(**options: Any) -> Any:
        script = Script(says(calls("refund")), says("done"))
        return govern(Agent(script.model, deps_type=str, tools=[declared(refund)]), name="a", **options)

    agent = agent_with(deps=make)
    asked = await waiting(agent)
    await decided(runtime, asked)
    assert isinstance(await agent.resume(asked.facts.run_id), Answered)
    assert made == ["hi", "hi"]
    bare = agent_with()
    asked = await waiting(bare, deps="given")
    await decided(runtime, asked)
    with pytest.raises(BadInput, match="was given its deps"):
        await bare.resume(asked.facts.run_id)
    assert isinstance(await bare.resume(asked.facts.run_id, deps="given again"), Answered)


async def test_the_tool_breaks(runtime: Runtime) -> None:
    """An action that broke on the way may have happened: a person is told, and it is never tried again."""

    def refund(cents: int) -> str:
        raise ConnectionError(f"the bank hung up on {cents}")

    agent = governed(Script(says(calls("refund", cents=5))), declared(refund), fallback=_zero)
    asked = await waiting(agent)
    await decided(runtime, asked)
    outcome = await agent.resume(asked.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert outcome.reason == "action_uncertain"
    assert "the bank hung up" in outcome.detail
    [approval] = await approvals(runtime, asked.facts.run_id)
    assert approval.state == "failed"


async def test_the_tool_says_no(runtime: Runtime) -> None:
    """What a tool tells the model on purpose the model hears: the run goes on, and the action counts as failed."""

    def refund(cents: int) -> str:
        raise ModelRetry(f"nothing is left of {cents}")

    script = Script(says(calls("refund", cents=5)), counts(0))
    agent = governed(script, declared(refund))
    asked = await waiting(agent)
    await decided(runtime, asked)
    outcome = await agent.resume(asked.facts.run_id)
    assert (type(outcome), outcome.path) == (Answered, "happy")
    assert "nothing is left" in str(script.asked[-1][-1])
    [approval] = await approvals(runtime, asked.facts.run_id)
    assert approval.state == "failed"


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_process_that_died_while_executing(
    runtime: Runtime, clock: VirtualClock, till: Till, idempotent: bool
) -> None:
    """After a crash in the midst an idempotent action is tried again under the same key; any other is a person's."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), declared(till.refund, idempotent=idempotent))
    asked = await waiting(agent)
    await decided(runtime, asked)
    [approval] = asked.approvals
    # What a process leaves behind that dies there: the run taken, the action begun.
    await runtime.database.write(begin(approval.approval_id, approval.digest, clock.now()))
    clock.advance(LEASE.total_seconds())
    outcome = await agent.resume(asked.facts.run_id)
    found = await runtime.database.read(partial(load_approval, approval_id=approval.approval_id))
    if idempotent:
        assert (type(outcome), till.paid, till.keys) == (Answered, [5], [approval.approval_id])
        assert found.state == "executed"
    else:
        assert isinstance(outcome, Escalated)
        assert (outcome.reason, till.paid, found.state) == ("action_uncertain", [], "unknown_after_crash")


async def test_arguments_that_were_changed(runtime: Runtime, till: Till) -> None:
    """A call is bound to the arguments that people saw: with others it is not executed, and a person is told."""
    agent = governed(Script(says(calls("refund", cents=5)), counts(1)), declared(till.refund))
    asked = await waiting(agent)
    await decided(runtime, asked)

    def tamper(conn: Any) -> None:
        conn.exec_driver_sql("UPDATE approvals SET digest = 'another'")

    await runtime.database.write(tamper)
    outcome = await agent.resume(asked.facts.run_id)
    assert isinstance(outcome, Escalated)
    assert (outcome.reason, till.paid) == ("action_uncertain", [])


async def test_the_model_is_down_afterwards(runtime: Runtime, till: Till) -> None:
    """Where the model fails after the action, the fallback answers; the action stays done once."""
    from pydantic_ai.exceptions import ModelHTTPError

    script = Script(says(calls("refund", cents=5)), ModelHTTPError(503, "m"))
    agent = governed(script, declared(till.refund), fallback=_zero)
    asked = await waiting(agent)
    await decided(runtime, asked)
    outcome = await agent.resume(asked.facts.run_id)
    assert (type(outcome), till.paid) == (FellBack, [5])


async def test_the_one_retry_is_the_runs(runtime: Runtime, till: Till) -> None:
    """A second try spent before people were asked is not given again after they decided."""
    script = Script(counts("many"), says(calls("refund", cents=5)), counts("many"))
    agent = governed(script, declared(till.refund), fallback=_zero)
    asked = await waiting(agent)
    await decided(runtime, asked)
    outcome = await agent.resume(asked.facts.run_id)
    assert isinstance(outcome, FellBack)
    assert outcome.fault.code == "output_malformed"


async def _zero(_request: RunRequest) -> Count:
    return Count(count=0)


def test_no_key_outside_an_action() -> None:
    """There is an idempotency key only inside an approved action."""
    with pytest.raises(BadInput, match="no approved action"):
        idempotency_key()


async def test_a_long_action_stays_under_way(runtime: Runtime, clock: VirtualClock) -> None:
    """An action that takes longer than its lease keeps it, as its run does: nobody takes either over."""
    began, may_end = asyncio.Event(), asyncio.Event()

    async def refund() -> str:
        began.set()
        await may_end.wait()
        return "paid"

    agent = governed(Script(says(calls("refund")), counts(1)), declared(refund))
    asked = await waiting(agent)
    await decided(runtime, asked)
    running = asyncio.ensure_future(agent.resume(asked.facts.run_id))
    await began.wait()
    [before] = await approvals(runtime, asked.facts.run_id)
    async with asyncio.timeout(30):
        while not clock.sleeping:
            await runtime.database.read(lambda _conn: None)
        clock.advance(LEASE.total_seconds() / 2)
        while (await approvals(runtime, asked.facts.run_id)) == [before]:
            await runtime.database.read(lambda _conn: None)
    [after] = await approvals(runtime, asked.facts.run_id)
    assert before.executing_until is not None
    assert after.executing_until is not None
    assert (after.executing_until - before.executing_until).total_seconds() == LEASE.total_seconds() / 2
    may_end.set()
    assert isinstance(await running, Answered)


async def test_a_process_that_slept_too_long(runtime: Runtime, clock: VirtualClock, till: Till) -> None:
    """A process that wakes up after another took its run over can neither ask the model nor end the run."""

    async def refund(cents: int) -> str:
        # Nobody renews a lease while the whole process sleeps.
        now = clock.now() + LEASE
        await runtime.database.write(take_over(asked.facts.run_id, now))
        return till.refund(cents)

    script = Script(says(calls("refund", cents=5)), counts(1))
    agent = governed(script, declared(refund))
    asked = await waiting(agent)
    await decided(runtime, asked)
    with pytest.raises(TakenOver, match="another process carries it on"):
        await agent.resume(asked.facts.run_id)
    assert len(script.asked) == 1
    outcomes = await runtime.database.read(partial(load_outcomes, run_id=asked.facts.run_id))
    assert [each.type for each in outcomes] == ["awaiting_approval"]
    [approval] = await approvals(runtime, asked.facts.run_id)
    assert (approval.state, till.paid) == ("unknown_after_crash", [5])
