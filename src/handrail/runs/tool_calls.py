"""The ids of tool calls: a provider may give one id to several calls, and a run tells its calls apart by them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart


def with_unique_calls(response: ModelResponse, messages: Sequence[ModelMessage]) -> ModelResponse:
    """The response, in which a call with an id that another call has had is given one of its own.

    Args:
        response: What the model answered.
        messages: The messages before it.
    """
    taken = {part.tool_call_id for message in messages for part in message.parts if isinstance(part, ToolCallPart)}
    parts = list(response.parts)
    for index, part in enumerate(parts):
        if isinstance(part, ToolCallPart):
            if part.tool_call_id in taken:
                parts[index] = part = replace(part, tool_call_id=_unused(part.tool_call_id, taken))
            taken.add(part.tool_call_id)
    return response if parts == list(response.parts) else replace(response, parts=parts)


def _unused(call_id: str, taken: set[str]) -> str:
    return next(new for number in count(2) if (new := f"{call_id}_{number}") not in taken)
