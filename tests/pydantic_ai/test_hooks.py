"""What Handrail stands on in Pydantic AI; run on both ends of the range (`make lowest` is the lower)."""

import copy
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, RunContext, Tool, capture_run_messages
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering, ModelFallback
from pydantic_ai.exceptions import ApprovalRequired, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings


class Count(BaseModel):
    count: int


class Hooked(AbstractCapability[Any]):
    """Notes which hooks were called, with what."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        self.seen.append(("model", model.model_name))
        return WrapperModel(model)

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        self.seen.append(("tool", (call.tool_name, args, tool_def.kind, ctx.tool_call_approved)))
        if (tool_def.metadata or {}).get("ask"):
            raise ApprovalRequired
        return await handler(args)

    async def on_tool_validate_error(self, _ctx: Any, *, call: Any, tool_def: Any, args: Any, error: Any) -> Any:  # noqa: ARG002
        self.seen.append(("bad arguments", call.tool_name))
        raise error

    async def on_output_validate_error(self, ctx: Any, *, output_context: Any, output: Any, error: Any) -> Any:  # noqa: ARG002
        self.seen.append(("bad output", ctx.partial_output))
        raise error


def script(*turns: ModelResponse, name: str = "script") -> FunctionModel:
    left = list(turns)
    return FunctionModel(lambda _messages, _info: left.pop(0), model_name=name)


def call(tool: str, **arguments: Any) -> ModelResponse:
    return ModelResponse([ToolCallPart(tool, arguments)])


def look(number: int) -> int:
    return number


def text(said: str) -> ModelResponse:
    return ModelResponse([TextPart(said)])


def test_where_prompts_are_kept() -> None:
    """An agent keeps what its prompts were given as, text and functions, where the fingerprint reads them."""

    def of_run(_ctx: RunContext[object]) -> str:
        return "now"

    part = InstructionPart(content="part")
    agent = Agent(TestModel(), instructions=["written", part, of_run], system_prompt=("first", "second"))
    agent.system_prompt(of_run)
    agent.instructions(of_run)
    assert [each.instruction for each in agent._instructions] == ["written", part, of_run, of_run]
    assert tuple(agent._system_prompts) == ("first", "second")
    assert [each.function for each in agent._system_prompt_functions] == [of_run]


async def test_a_run_may_defer() -> None:
    """The flag on a copy's output schema lets its runs end in DeferredToolRequests, and leaves the agent alone."""
    asking = Tool(look, metadata={"ask": True})
    agent = Agent(script(call("look", number=1)), output_type=Count, tools=[asking], capabilities=[Hooked()])
    assert agent._output_schema.allows_deferred_tools is False
    twin = copy.copy(agent)
    twin._output_schema = copy.copy(agent._output_schema)
    twin._output_schema.allows_deferred_tools = True
    result: Any = await twin.run("hi")
    assert isinstance(result.output, DeferredToolRequests)
    assert [each.tool_name for each in result.output.approvals] == ["look"]
    assert agent._output_schema.allows_deferred_tools is False


async def test_overrides_reach_a_copy() -> None:
    """A copy of an agent is overridden with it."""
    agent = Agent(TestModel(custom_output_text="own"))
    twin = copy.copy(agent)
    with agent.override(model=TestModel(custom_output_text="other")):
        assert (await twin.run("hi")).output == "other"


async def test_every_attempt_has_its_model_wrapped() -> None:
    """The wrapper is asked for by each attempt, with the model that serves it: the first, then its fallback."""

    def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(503, "first")

    hooked = Hooked()
    second = script(call("look", number=1), text("ok"), name="second")
    agent = Agent(FunctionModel(down, model_name="first"), tools=[look])
    await agent.run("hi", capabilities=[hooked, ModelFallback(second)])
    asked = [name for kind, name in hooked.seen if kind == "model"]
    assert asked[:2] == ["first", "second"]


async def test_every_tool_call_is_wrapped() -> None:
    """A tool's call passes through the capability with validated arguments, and Pydantic AI's flag in its kind."""
    hooked = Hooked()
    agent = Agent(script(call("look", number="7"), text("ok")), tools=[look])
    await agent.run("hi", capabilities=[hooked])
    assert ("tool", ("look", {"number": 7}, "function", False)) in hooked.seen
    assert Tool(look, requires_approval=True).tool_def.kind == "unapproved"


async def test_malformed_work_is_seen() -> None:
    """Arguments and outputs that do not fit are shown to the capability each time, before Pydantic AI asks anew."""
    hooked = Hooked()
    turns = [call("look", number="x"), call("final_result", count="many"), call("final_result", count=1)]
    result = await Agent(script(*turns), output_type=Count, tools=[look]).run("hi", capabilities=[hooked])
    assert result.output == Count(count=1)
    assert [seen for seen in hooked.seen if seen[0].startswith("bad")] == [
        ("bad arguments", "look"),
        ("bad output", False),
    ]


async def test_the_end_of_retries() -> None:
    """An agent that names no number asks once more, and then raises UnexpectedModelBehavior."""
    turns = [call("final_result", count="many")] * 3
    with capture_run_messages() as messages, pytest.raises(UnexpectedModelBehavior):
        await Agent(script(*turns), output_type=Count).run("hi")
    assert sum(isinstance(message, ModelResponse) for message in messages) == 2


async def test_max_retries_reaches_the_model() -> None:
    """The setting that turns a provider's own retries off is one of ModelSettings, and reaches the model."""
    found: list[Any] = []

    def note(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        found.append(info.model_settings)
        return text("ok")

    settings: ModelSettings = {"max_retries": 0}
    await Agent(FunctionModel(note)).run("hi", model_settings=settings)
    assert "max_retries" in ModelSettings.__annotations__
    assert found[0]["max_retries"] == 0
