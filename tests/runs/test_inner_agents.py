"""Agents that run inside a governed run are part of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, Tool
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, Escalated, Failed, FellBack, Governance, Refused, RunRequest, Runtime, govern, tool
from handrail.runs.store.queries import load_run
from handrail.traces.store.spans import load_trace

from .scripts import Script, calls, counts, says

refunds: list[int] = []


def refund(amount: int) -> str:
    refunds.append(amount)
    return "refunded"


@pytest.fixture(autouse=True)
def no_refunds() -> None:
    refunds.clear()


async def spans_of(runtime: Runtime, trace_id: str) -> list[Any]:
    """The spans of a trace, by their start."""
    _, spans = await runtime.database.read(load_trace(trace_id, None))
    return sorted(spans, key=lambda span: span.start_ns)


def outer_with(ask: Any, **options: Any) -> Any:
    """An agent that calls the tool `ask` and then answers."""
    return govern(Agent(Script(says(calls("ask")), says("done")).model, tools=[ask], **options), name="outer")


async def test_an_inner_agent_is_held_and_traced(runtime: Runtime) -> None:
    """A plain agent inside a tool spends from the run: its requests are held, counted and traced below the tool."""
    inner = Agent(Script(says("inner")).model, name="inner")

    async def ask() -> str:
        return (await inner.run("hi")).output

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.facts.requests == 3
    spans = await spans_of(runtime, outcome.facts.trace_id)
    by_id = {span.span_id: span for span in spans}
    [inner_span] = [span for span in spans if span.name == "invoke_agent inner"]
    assert by_id[inner_span.parent_id].name == "execute_tool ask"
    models = [span for span in spans if span.kind == "model"]
    assert len(models) == 3
    assert all(span.held is not None for span in models)
    assert by_id[models[1].parent_id] is inner_span


async def test_an_inner_agent_by_the_runs_model(runtime: Runtime) -> None:
    """An inner agent that uses `ctx.model` is held once for each request, not twice."""
    script = Script(says(calls("ask")), says("inner"), says("done"))

    async def ask(ctx: RunContext[None]) -> str:
        model: Any = ctx.model
        return str((await Agent(model).run("hi")).output)

    outcome = await govern(Agent(script.model, tools=[ask]), name="outer").run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.facts.requests == 3
    assert (await runtime.database.read(load_run(outcome.facts.run_id, runtime.clock.now()))).requests == 3


@pytest.mark.parametrize("swallow", [False, True])
async def test_an_inner_irreversible_call(swallow: bool) -> None:
    """An irreversible tool of an inner agent is never executed, and the run is escalated, whatever the tool does."""
    script = Script(says(calls("refund", amount=5)), says("ok"))
    inner = Agent(script.model, tools=[tool(refund, effect="irreversible")], name="inner")

    async def ask() -> str:
        try:
            return (await inner.run("hi")).output
        except Exception:
            if swallow:
                return "nothing"
            raise

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Escalated)
    assert outcome.reason == "inner_action_blocked"
    assert [(proposal.tool, proposal.arguments) for proposal in outcome.proposals] == [("refund", {"amount": 5})]
    assert refunds == []
    assert outcome.facts.requests == 2


@pytest.mark.parametrize("deferring", [False, True])
async def test_an_inner_call_that_needs_approval(deferring: bool) -> None:
    """An inner call that Pydantic AI defers neither pauses nor is approved by the tool around it."""
    output: Any = [str, DeferredToolRequests] if deferring else str
    inner = Agent(
        Script(says(calls("refund", amount=5)), says("ok")).model,
        output_type=output,
        tools=[Tool(refund, requires_approval=True)],
    )

    async def ask() -> str:
        result: Any = await inner.run("hi")
        if isinstance(result.output, DeferredToolRequests):
            approved = DeferredToolResults(approvals={call.tool_call_id: True for call in result.output.approvals})
            result = await inner.run(message_history=result.all_messages(), deferred_tool_results=approved)
        return str(result.output)

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Escalated)
    assert refunds == []


async def test_an_inner_ceiling_stops_the_run() -> None:
    """An inner request that does not fit below the run's ceiling refuses the run."""
    inner = Agent(Script(says("inner")).model)

    async def ask() -> str:
        return (await inner.run("x" * 40_000)).output

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Refused)
    assert outcome.scope == "run"


async def test_an_inner_agent_shares_the_retry() -> None:
    """A retry that an inner agent used is not there for the run's own agent."""
    from .scripts import Count

    inner = Agent(Script(counts("x"), counts(1)).model, output_type=Count)

    async def ask() -> int:
        return (await inner.run("hi")).output.count

    script = Script(says(calls("ask")), counts("x"), counts(1))
    outcome = await govern(Agent(script.model, output_type=Count, tools=[ask]), name="a").run("hi", user="u")
    assert isinstance(outcome, Failed)
    assert outcome.fault.code == "output_malformed"


async def test_a_sync_tool_with_an_inner_agent() -> None:
    """An inner agent in a synchronous tool, which runs in a thread, is part of the run too."""
    inner = Agent(Script(says("inner")).model)

    def ask() -> str:
        return asyncio.run(inner.run("hi")).output

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.facts.requests == 3


async def test_a_pool_of_threads() -> None:
    """Inner agents in the threads of a pool, which a synchronous tool maps over documents, are part of the run."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return says("inner")

    agent = Agent(FunctionModel(reply), model_settings={"max_tokens": 100})

    def ask() -> str:
        with ThreadPoolExecutor(4) as pool:
            return str(len(list(pool.map(lambda text: asyncio.run(agent.run(text)), ["a", "b", "c"]))))

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.facts.requests == 5


async def test_parallel_inner_agents() -> None:
    """Inner agents at the same time lose no request and no settlement."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return says("inner")

    agent = Agent(FunctionModel(reply))

    async def ask() -> str:
        results = await asyncio.gather(*(agent.run("hi", model_settings={"max_tokens": 100}) for _ in range(10)))
        return str(len(results))

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Answered)
    assert outcome.facts.requests == 12


async def test_a_direct_request() -> None:
    """A model request that no agent makes is held and counted."""
    model = Script(says("inner")).model

    async def ask() -> str:
        response = await model_request(model, [ModelRequest([UserPromptPart("hi")])])
        return str(response.parts)

    outcome = await outer_with(ask).run("hi", user="u")
    assert outcome.facts.requests == 3


async def test_a_fallback_that_calls_a_model() -> None:
    """What the fallback spends on models belongs to the run."""
    helper = Agent(Script(says("helped")).model)

    async def answer(_request: RunRequest) -> str | None:
        return (await helper.run("hi")).output

    agent = govern(Agent(Script(OSError("down")).model), name="a", fallback=answer)
    outcome = await agent.run("hi", user="u")
    assert isinstance(outcome, FellBack)
    assert (outcome.output, outcome.facts.requests) == ("helped", 2)


async def test_a_governed_agent_inside_a_tool() -> None:
    """A governed agent inside a tool is a run of its own."""
    inner = govern(Agent(Script(says("inner")).model), name="inner")
    facts = []

    async def ask() -> str:
        outcome = await inner.run("hi", user="u")
        facts.append(outcome.facts)
        return outcome.message

    outcome = await outer_with(ask).run("hi", user="u")
    assert outcome.facts.requests == 2
    assert facts[0].requests == 1


async def test_the_capability_governs_inner_agents() -> None:
    """A run that `Governance` governs has its inner agents governed too."""
    inner = Agent(Script(says(calls("refund", amount=5))).model, tools=[tool(refund, effect="irreversible")])

    async def ask() -> str:
        return (await inner.run("hi")).output

    agent = Agent(Script(says(calls("ask")), says("done")).model, tools=[ask])
    with pytest.raises(Exception, match="refund, which is irreversible"):
        await agent.run("hi", capabilities=[Governance(name="outer", user="u")])
    assert refunds == []


async def test_a_task_that_outlives_the_run() -> None:
    """A task that a run started cannot spend once the run has ended."""
    model = Script(says("late")).model
    gate = asyncio.Event()
    tasks = []

    async def later() -> Any:
        await gate.wait()
        return await Agent(model).run("hi")

    async def ask() -> str:
        tasks.append(asyncio.create_task(later()))
        return "started"

    outcome = await outer_with(ask).run("hi", user="u")
    assert isinstance(outcome, Answered)
    gate.set()
    with pytest.raises(Exception, match="has ended"):
        await tasks[0]


async def test_outside_of_runs_nothing_changes() -> None:
    """An agent that runs outside of governed runs executes its tools and is not recorded."""
    await govern(Agent(Script(says("done")).model), name="a").run("hi", user="u")
    script = Script(says(calls("refund", amount=5)), says("ok"))
    plain = Agent(script.model, tools=[tool(refund, effect="irreversible")])
    assert (await plain.run("hi")).output == "ok"
    assert refunds == [5]
