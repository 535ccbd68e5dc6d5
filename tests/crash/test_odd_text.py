"""Runs end in an outcome even if models or tools return invalid text."""

from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, govern, tool
from handrail.testing import sandbox


async def test_a_model_may_return_a_lone_surrogate(tmp_path: Path) -> None:
    """An answer with a lone surrogate, which UTF-8 cannot encode, is answered and stored."""

    def reply(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("half \ud83d")])

    with sandbox(tmp_path, model=FunctionModel(reply)):
        outcome = await govern(Agent(), name="support").run("hello", user="u-1")
    assert isinstance(outcome, Answered)


async def test_a_tool_may_return_bytes(tmp_path: Path) -> None:
    """A tool that returns bytes that are not UTF-8 does not stop its run."""

    def fetch() -> bytes:
        return b"\xff\xfe"

    def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("fetch", {}) if len(messages) == 1 else TextPart("fetched")])

    with sandbox(tmp_path, model=FunctionModel(reply)):
        outcome = await govern(Agent(tools=[tool(fetch, effect="reads")]), name="support").run("hello", user="u-1")
    assert isinstance(outcome, Answered)


@pytest.mark.parametrize("text", ["a\x00b", "\ufeff", "\u202e"])
async def test_any_valid_text_may_be_an_input(tmp_path: Path, text: str) -> None:
    """A null character, a byte order mark and a direction override reach the model unchanged."""

    def reply(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(str(getattr(messages[-1].parts[-1], "content", None)))])

    with sandbox(tmp_path, model=FunctionModel(reply)):
        outcome = await govern(Agent(), name="support").run(f"x{text}", user="u-1")
    assert isinstance(outcome, Answered)
    assert outcome.output == f"x{text}"
