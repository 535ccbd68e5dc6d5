"""The behaviour of Pydantic AI that Handrail relies on, tested with the oldest and newest supported version."""

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
    """Records the hooks that were called, with their arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        self.calls.append(("model", model.model_name))
        return WrapperModel(model)

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        self.calls.append(("tool", (call.tool_name, args, tool_def.kind, ctx.tool_call_approved)))
        if (tool_def.metadata or {}).get("defer"):
            raise ApprovalRequired
        return await handler(args)

    async def on_tool_validate_error(self, _ctx: Any, *, call: Any, tool_def: Any, args: Any, error: Any) -> Any:  # noqa: ARG002
        self.calls.append(("bad arguments", call.tool_name))
        raise error

    async def on_output_validate_error(self, ctx: Any, *, output_context: Any, output: Any, error: Any) -> Any:  # noqa: ARG002
        self.calls.append(("bad output", ctx.partial_output))
        raise error


def script(*turns: ModelResponse, name: str = "script") -> FunctionModel:
    remaining = list(turns)
    return FunctionModel(lambda _messages, _info: remaining.pop(0), model_name=name)


def call(tool: str, **arguments: Any) -> ModelResponse:
    return ModelResponse([ToolCallPart(tool, arguments)])


def find_order(number: int) -> int:
    return number


def text(content: str) -> ModelResponse:
    return ModelResponse([TextPart(content)])


def test_where_prompts_are_stored() -> None:
    """An agent stores its prompts where the fingerprint reads them."""

    def dynamic(_ctx: RunContext[object]) -> str:
        return "now"

    part = InstructionPart(content="part")
    agent = Agent(TestModel(), instructions=["written", part, dynamic], system_prompt=("first", "second"))
    agent.system_prompt(dynamic)
    agent.instructions(dynamic)
    assert [sourced.instruction for sourced in agent._instructions] == ["written", part, dynamic, dynamic]
    assert tuple(agent._system_prompts) == ("first", "second")
    assert [runner.function for runner in agent._system_prompt_functions] == [dynamic]


async def test_a_run_may_defer() -> None:
    """The flag on a copy's output schema lets its runs end in DeferredToolRequests; the agent is not changed."""
    deferred = Tool(find_order, metadata={"defer": True})
    agent = Agent(script(call("find_order", number=1)), output_type=Count, tools=[deferred], capabilities=[Hooked()])
    assert agent._output_schema.allows_deferred_tools is False
    duplicate = copy.copy(agent)
    duplicate._output_schema = copy.copy(agent._output_schema)
    duplicate._output_schema.allows_deferred_tools = True
    result: Any = await duplicate.run("hi")
    assert isinstance(result.output, DeferredToolRequests)
    assert [call.tool_name for call in result.output.approvals] == ["find_order"]
    assert agent._output_schema.allows_deferred_tools is False


async def test_overrides_reach_a_copy() -> None:
    """`override` on an agent applies to its copy as well."""
    agent = Agent(TestModel(custom_output_text="own"))
    duplicate = copy.copy(agent)
    with agent.override(model=TestModel(custom_output_text="other")):
        assert (await duplicate.run("hi")).output == "other"


async def test_every_attempt_has_its_model_wrapped() -> None:
    """Each attempt gets its own wrapper, with the model that serves it: the first, then its fallback."""

    def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(503, "first")

    hooked = Hooked()
    second = script(call("find_order", number=1), text("ok"), name="second")
    agent = Agent(FunctionModel(down, model_name="first"), tools=[find_order])
    await agent.run("hi", capabilities=[hooked, ModelFallback(second)])
    names = [name for kind, name in hooked.calls if kind == "model"]
    assert names[:2] == ["first", "second"]


async def test_every_tool_call_is_wrapped() -> None:
    """A tool call passes through the capability with validated arguments, and its kind has Pydantic AI's flag."""
    hooked = Hooked()
    agent = Agent(script(call("find_order", number="7"), text("ok")), tools=[find_order])
    await agent.run("hi", capabilities=[hooked])
    assert ("tool", ("find_order", {"number": 7}, "function", False)) in hooked.calls
    assert Tool(find_order, requires_approval=True).tool_def.kind == "unapproved"


async def test_malformed_work_reaches_the_capability() -> None:
    """The capability gets each malformed argument or output, before Pydantic AI retries."""
    hooked = Hooked()
    turns = [call("find_order", number="x"), call("final_result", count="many"), call("final_result", count=1)]
    result = await Agent(script(*turns), output_type=Count, tools=[find_order]).run("hi", capabilities=[hooked])
    assert result.output == Count(count=1)
    assert [hook_call for hook_call in hooked.calls if hook_call[0].startswith("bad")] == [
        ("bad arguments", "find_order"),
        ("bad output", False),
    ]


async def test_the_end_of_retries() -> None:
    """By default an agent retries once, and then raises UnexpectedModelBehavior."""
    turns = [call("final_result", count="many")] * 3
    with capture_run_messages() as messages, pytest.raises(UnexpectedModelBehavior):
        await Agent(script(*turns), output_type=Count).run("hi")
    assert sum(isinstance(message, ModelResponse) for message in messages) == 2


async def test_max_retries_reaches_the_model() -> None:
    """The setting that turns off a provider's own retries is part of ModelSettings, and reaches the model."""
    sent_settings: list[Any] = []

    def note(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        sent_settings.append(info.model_settings)
        return text("ok")

    settings: ModelSettings = {"max_retries": 0}
    await Agent(FunctionModel(note)).run("hi", model_settings=settings)
    assert "max_retries" in ModelSettings.__annotations__
    assert sent_settings[0]["max_retries"] == 0
