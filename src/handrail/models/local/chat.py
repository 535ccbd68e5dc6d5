"""Renders a conversation as chat messages for the built-in model.

What stays the same comes first (instructions, forms, then what the instructions say anew for each run), so that the
model's prompt cache serves it again, and each later message is appended unchanged.
"""

import json
from collections.abc import Sequence

from pydantic_ai.exceptions import ModelRequestRejectedError
from pydantic_ai.messages import (
    CachePoint,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    SystemPromptPart,
    TextContent,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

from .grammar import ANSWER, REPLY, Form, explain, named_arguments

ChatMessage = dict[str, str]


def render(
    messages: Sequence[ModelMessage], parameters: ModelRequestParameters, forms: Sequence[Form], model_name: str
) -> list[ChatMessage]:
    """Chat messages, the system's first. Raises ModelRequestRejectedError where a part is not text."""
    keys = {form.key for form in forms}
    opening = messages[0].parts if messages and isinstance(messages[0], ModelRequest) else ()
    prompts = [part.content for part in opening if isinstance(part, SystemPromptPart)]
    static, dynamic = _instructions(messages, parameters)
    system = "\n\n".join([*prompts, *static, explain(forms), *dynamic])
    chat = [{"role": "system", "content": system}]
    for index, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            role, lines = "assistant", _said(message, ANSWER if ANSWER in keys else REPLY)
        else:
            role, lines = "user", [_heard(part, model_name, opening=index == 0) for part in message.parts]
        if content := "\n".join(line for line in lines if line):
            chat.append({"role": role, "content": content})
    return chat


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> tuple[list[str], list[str]]:
    """The instructions that are the same in every run, and those that may differ."""
    parts = parameters.instruction_parts
    if parts is None:
        latest = (m.instructions for m in reversed(messages) if isinstance(m, ModelRequest) and m.instructions)
        parts = [InstructionPart(content=text) for text in latest][:1]
    return [p.content for p in parts if not p.dynamic], [p.content for p in parts if p.dynamic]


def _said(response: ModelResponse, text_key: str) -> list[str]:
    """The assistant's turn, in the forms it answers in. Thoughts and files of other models are left out."""
    lines = []
    for part in response.parts:
        match part:
            case ToolCallPart():
                lines.append(_json({part.tool_name: named_arguments(part.args)}))
            case TextPart(content=text) if text:
                lines.append(_json({text_key: named_arguments(text) if text_key == ANSWER else text}))
            case _:
                pass
    return lines


def _heard(part: ModelRequestPart, model_name: str, *, opening: bool) -> str:
    match part:
        case SystemPromptPart():
            return "" if opening else part.content
        case UserPromptPart(content=str(text)):
            return text
        case UserPromptPart(content=pieces):
            return "\n".join(_text(piece, model_name) for piece in pieces)
        case ToolReturnPart():
            return f"{part.tool_name} returned: {part.model_response_str()}"
        case _:
            raise ModelRequestRejectedError(model_name, f"The built-in model cannot be told a {type(part).__name__}")


def _text(piece: UserContent, model_name: str) -> str:
    match piece:
        case str():
            return piece
        case TextContent():
            return piece.content
        case CachePoint():
            return ""
        case _:
            raise ModelRequestRejectedError(
                model_name, f"The built-in model reads text only, and was given a {type(piece).__name__}"
            )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
