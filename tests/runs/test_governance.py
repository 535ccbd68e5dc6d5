"""Governance for code that calls the Pydantic AI agent directly."""

import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import BadInput, Governance, Runtime, tool
from handrail.runs.store.queries import RunView, list_runs, load_outcomes
from handrail.traces.store.spans import load_trace


def _hello(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("hello")])


def _runs(runtime: Runtime) -> list[RunView]:
    now = runtime.clock.now()
    return runtime.database.read_now(list_runs(now, tenant=None, agent=None, limit=10, before=None))


async def test_a_plain_run_is_recorded(runtime: Runtime) -> None:
    """A plain `agent.run` with Governance is recorded like any other run, with its trace."""
    result = await Agent(FunctionModel(_hello)).run("hi", capabilities=[Governance(name="own", user="u", tenant="t")])
    assert result.output == "hello"
    [run] = _runs(runtime)
    assert (run.agent, run.tenant, run.user, run.status, run.requests) == ("own", "t", "u", "answered", 1)
    _, spans = runtime.database.read_now(load_trace(run.trace_id, "t"))
    assert [span.kind for span in spans] == ["agent", "model"]


async def test_a_run_by_iter_is_recorded(runtime: Runtime) -> None:
    """A run by `agent.iter` is recorded too."""
    governance = Governance(name="own", user="u")
    async with Agent(FunctionModel(_hello)).iter("hi", capabilities=[governance]) as steps:
        async for _ in steps:
            pass
    assert [run.status for run in _runs(runtime)] == ["answered"]


async def test_governance_attached_to_the_agent_opens_a_record_for_each_run(runtime: Runtime) -> None:
    """One Governance on the agent serves many runs, each with its own record."""
    agent = Agent(FunctionModel(_hello), capabilities=[Governance(name="own", user="u")])
    await agent.run("one")
    await agent.run("two")
    assert len({run.run_id for run in _runs(runtime)}) == 2


async def test_a_fault_is_recorded_and_raised(runtime: Runtime) -> None:
    """The caller gets the exception, and the run is recorded as failed with the fault's code."""

    def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(500, "fake")

    with pytest.raises(ModelHTTPError):
        await Agent(FunctionModel(down)).run("hi", capabilities=[Governance(name="own", user="u")])
    [run] = _runs(runtime)
    assert (run.status, run.fault) == ("failed", "model_unavailable")


async def test_an_irreversible_tool_stops_a_plain_run(runtime: Runtime) -> None:
    """The run ends with Pydantic AI's deferred requests, and is recorded as escalated with the proposal."""

    def refund(cents: int) -> str:
        """Refund."""
        raise NotImplementedError(cents)

    def propose(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("refund", {"cents": 5})])

    agent = Agent(
        FunctionModel(propose), output_type=[str, DeferredToolRequests], tools=[tool(refund, effect="irreversible")]
    )
    result = await agent.run("hi", capabilities=[Governance(name="own", user="u")])
    assert isinstance(result.output, DeferredToolRequests)
    [run] = _runs(runtime)
    assert run.status == "escalated"
    [outcome] = runtime.database.read_now(load_outcomes(run.run_id))
    assert outcome.body["proposals"][0]["arguments"] == {"cents": 5}


async def test_governance_needs_a_user() -> None:
    """A run without a user raises BadInput before the model is called."""
    with pytest.raises(BadInput, match="user"):
        await Agent(FunctionModel(_hello)).run("hi", capabilities=[Governance(name="own")])
