"""Models that give scripted responses."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


class Count(BaseModel):
    """The output type of most agents here."""

    count: int


class Script:
    """A model that returns these responses in turn, or raises them; `requests` has the messages of each request."""

    def __init__(self, *turns: ModelResponse | BaseException) -> None:
        self._turns = list(turns)
        self.requests: list[list[ModelMessage]] = []
        self.infos: list[AgentInfo] = []
        self.model = FunctionModel(self._respond, model_name="script")

    def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.requests.append(list(messages))
        self.infos.append(info)
        assert self._turns, "the model got one more request than the test scripted"
        turn = self._turns.pop(0)
        if isinstance(turn, BaseException):
            raise turn
        return turn

    def prompts(self) -> list[Any]:
        """The user prompts of the last request."""
        return [
            part.content for message in self.requests[-1] for part in message.parts if isinstance(part, UserPromptPart)
        ]


def says(*parts: ModelResponsePart | str) -> ModelResponse:
    """A response of these parts; a string is a text part."""
    return ModelResponse([TextPart(part) if isinstance(part, str) else part for part in parts])


def calls(tool: str, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(tool, arguments, tool_call_id="-".join([tool, *map(str, arguments.values())]))


def counts(count: Any) -> ModelResponse:
    """A response that answers with `Count`; anything but a whole number is malformed."""
    return says(ToolCallPart("final_result", {"count": count}))


def texts(responses: Sequence[ModelResponse]) -> list[str]:
    """The texts of some responses."""
    return [part.content for response in responses for part in response.parts if isinstance(part, TextPart)]
