"""Renders a conversation as chat messages for the built-in model.

What never changes comes first: static instructions, then the reply formats, then instructions that differ between runs.
Each later message is appended unchanged. This lets the prompt cache cover as much as possible of the next request.
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

from .grammar import ANSWER, REPLY, ReplyFormat, describe_formats, parse_arguments

ChatMessage = dict[str, str]


def render(
    messages: Sequence[ModelMessage],
    parameters: ModelRequestParameters,
    formats: Sequence[ReplyFormat],
    model_name: str,
) -> list[ChatMessage]:
    """Renders a conversation, the system message first.

    Args:
        messages: The conversation so far.
        parameters: The request's tools, output and instructions.
        formats: The formats that the model may reply in.
        model_name: The model, for errors.

    Raises:
        ModelRequestRejectedError: A part is not text.
    """
    keys = {reply_format.key for reply_format in formats}
    first_parts = messages[0].parts if messages and isinstance(messages[0], ModelRequest) else ()
    prompts = [part.content for part in first_parts if isinstance(part, SystemPromptPart)]
    static, dynamic = _instructions(messages, parameters)
    system = "\n\n".join([*prompts, *static, describe_formats(formats), *dynamic])
    chat = [{"role": "system", "content": system}]
    for index, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            role, lines = "assistant", _assistant_lines(message, ANSWER if ANSWER in keys else REPLY)
        else:
            role, lines = "user", [_user_line(part, model_name, is_first=index == 0) for part in message.parts]
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


def _assistant_lines(response: ModelResponse, text_key: str) -> list[str]:
    """A response in the reply formats, without the reasoning and files of other models."""
    lines = []
    for part in response.parts:
        match part:
            case ToolCallPart():
                lines.append(_json({part.tool_name: parse_arguments(part.args)}))
            case TextPart(content=text) if text:
                lines.append(_json({text_key: parse_arguments(text) if text_key == ANSWER else text}))
            case _:
                pass
    return lines


def _user_line(part: ModelRequestPart, model_name: str, *, is_first: bool) -> str:
    match part:
        case SystemPromptPart():
            return "" if is_first else part.content  # the first ones are in the system message
        case UserPromptPart(content=str(text)):
            return text
        case UserPromptPart(content=pieces):
            return "\n".join(_text(piece, model_name) for piece in pieces)
        case ToolReturnPart():
            return f"{part.tool_name} returned: {part.model_response_str()}"
        case _:
            raise ModelRequestRejectedError(model_name, f"The built-in model does not support a {type(part).__name__}")


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
