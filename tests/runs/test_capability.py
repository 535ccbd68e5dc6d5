"""Governance for those who drive the agent themselves."""

import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import BadInput, Governance, Runtime, tool
from handrail.runs.store.runs import RunView, list_runs, load_outcomes
from handrail.traces.store.spans import load_trace


def _hello(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("hello")])


def _runs(runtime: Runtime) -> list[RunView]:
    now = runtime.clock.now()
    return runtime.database.read_now(lambda conn: list_runs(conn, now, tenant=None, agent=None, limit=10, before=None))


async def test_a_run_of_ones_own_is_recorded(runtime: Runtime) -> None:
    """A plain `agent.run` with Governance attached is a run like any other, with its trace."""
    result = await Agent(FunctionModel(_hello)).run("hi", capabilities=[Governance(name="own", user="u", tenant="t")])
    assert result.output == "hello"
    [run] = _runs(runtime)
    assert (run.agent, run.tenant, run.user, run.status, run.requests) == ("own", "t", "u", "answered", 1)
    _, spans = runtime.database.read_now(lambda conn: load_trace(conn, run.trace_id, "t"))
    assert [span.kind for span in spans] == ["agent", "model"]


async def test_a_run_driven_node_by_node_is_recorded(runtime: Runtime) -> None:
    """`agent.iter` ends in a recorded outcome too."""
    governance = Governance(name="own", user="u")
    async with Agent(FunctionModel(_hello)).iter("hi", capabilities=[governance]) as steps:
        async for _ in steps:
            pass
    assert [run.status for run in _runs(runtime)] == ["answered"]


async def test_governance_attached_to_the_agent_opens_a_record_for_each_run(runtime: Runtime) -> None:
    """One Governance on the agent serves many runs, each with a record of its own."""
    agent = Agent(FunctionModel(_hello), capabilities=[Governance(name="own", user="u")])
    await agent.run("one")
    await agent.run("two")
    assert len({run.run_id for run in _runs(runtime)}) == 2


async def test_a_fault_is_recorded_and_raised(runtime: Runtime) -> None:
    """Without a fallback of ours the caller gets the exception, and the run is failed with its code."""

    def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(500, "fake")

    with pytest.raises(ModelHTTPError):
        await Agent(FunctionModel(down)).run("hi", capabilities=[Governance(name="own", user="u")])
    [run] = _runs(runtime)
    assert (run.status, run.fault) == ("failed", "model_unavailable")


async def test_an_irreversible_tool_stops_a_run_of_ones_own(runtime: Runtime) -> None:
    """The run ends in Pydantic AI's deferred requests, and in our record as escalated with the proposal."""

    def refund(cents: int) -> str:
        """Refund."""
        raise NotImplementedError(cents)

    def asking(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("refund", {"cents": 5})])

    agent = Agent(
        FunctionModel(asking), output_type=[str, DeferredToolRequests], tools=[tool(refund, effect="irreversible")]
    )
    result = await agent.run("hi", capabilities=[Governance(name="own", user="u")])
    assert isinstance(result.output, DeferredToolRequests)
    [run] = _runs(runtime)
    assert run.status == "escalated"
    [outcome] = runtime.database.read_now(lambda conn: load_outcomes(conn, run.run_id))
    assert outcome.body["proposals"][0]["arguments"] == {"cents": 5}


async def test_governance_needs_to_know_for_whom() -> None:
    """A run without a user is refused before the model is asked."""
    with pytest.raises(BadInput, match="user"):
        await Agent(FunctionModel(_hello)).run("hi", capabilities=[Governance(name="own")])
