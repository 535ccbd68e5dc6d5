"""Converts the messages of a payload to the GenAI conventions' schema of roles and parts (`gen_ai.input.messages`).

The payloads of Handrail's own spans have Pydantic AI's messages, as plain values.
"""

from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]

_ROLES = {"system-prompt": "system", "user-prompt": "user", "tool-return": "tool", "retry-prompt": "user"}


def input_messages(messages: Any) -> list[Message]:
    """Converts requests and responses, in their order; consecutive parts of one role become one message."""
    converted: list[Message] = []
    for message in _mappings(messages):
        if message.get("kind") == "response":
            converted.append(output_message(message.get("parts")))
            continue
        for part in _mappings(message.get("parts")):
            role = _role(part)
            if not converted or converted[-1]["role"] != role:
                converted.append({"role": role, "parts": []})
            converted[-1]["parts"].extend(_request_part(part))
    return converted


def output_message(parts: Any) -> Message:
    """One response of the model."""
    return {"role": "assistant", "parts": [_response_part(part) for part in _mappings(parts)]}


def instructions(messages: Any) -> list[Message]:
    """The instructions of the newest request that has any, as parts."""
    texts = [message["instructions"] for message in _mappings(messages) if message.get("instructions")]
    return [_text(texts[-1])] if texts else []


def text_message(role: str, text: str) -> Message:
    """A message of one text."""
    return {"role": role, "parts": [_text(text)]}


def _role(part: Mapping[str, Any]) -> str:
    if part.get("part_kind") == "retry-prompt" and part.get("tool_name"):
        return "tool"
    return _ROLES.get(str(part.get("part_kind")), "user")


def _request_part(part: Mapping[str, Any]) -> list[Message]:
    if _role(part) == "tool":
        return [{"type": "tool_call_response", "id": part.get("tool_call_id"), "response": part.get("content")}]
    match part.get("content"):
        case str() as text:
            return [_text(text)]
        case list() as content:
            return [_text(item) if isinstance(item, str) else _media(item) for item in content]
    return [_other(part)]


def _response_part(part: Mapping[str, Any]) -> Message:
    match part.get("part_kind"):
        case "text":
            return _text(part.get("content"))
        case "thinking":
            return {"type": "reasoning", "content": part.get("content")}
        case "tool-call":
            name, arguments = part.get("tool_name"), part.get("args")
            return {"type": "tool_call", "id": part.get("tool_call_id"), "name": name, "arguments": arguments}
    return _other(part)


def _other(part: Mapping[str, Any]) -> Message:
    return {**part, "type": str(part.get("part_kind"))}


def _media(part: Any) -> Message:
    if not isinstance(part, Mapping):
        return _text(part)
    if "url" in part:
        return {"type": "uri", "uri": part["url"], "modality": str(part.get("kind", "")).removesuffix("-url")}
    return {"type": "blob", "mime_type": part.get("media_type"), "content": part.get("data")}


def _text(content: Any) -> Message:
    return {"type": "text", "content": content if isinstance(content, str) else str(content)}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; a redaction may have left other values in it, or replaced the list itself."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
