"""What models were told and said, as GenAI messages: roles and parts (OpenTelemetry's gen_ai.input.messages schema).

From the plain values of a payload of ours, in which messages are Pydantic AI's.
"""

from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]

_ROLES = {"system-prompt": "system", "user-prompt": "user", "tool-return": "tool", "retry-prompt": "user"}


def input_messages(messages: Any) -> list[Message]:
    """Requests and responses in their order, a message for each run of parts of one role."""
    found: list[Message] = []
    for message in _mappings(messages):
        if message.get("kind") == "response":
            found.append(output_message(message.get("parts")))
            continue
        for part in _mappings(message.get("parts")):
            role = _role(part)
            if not found or found[-1]["role"] != role:
                found.append({"role": role, "parts": []})
            found[-1]["parts"].extend(_told(part))
    return found


def output_message(parts: Any) -> Message:
    """What the model said in one response."""
    return {"role": "assistant", "parts": [_said(part) for part in _mappings(parts)]}


def instructions(messages: Any) -> list[Message]:
    """The instructions of the newest request that has any, as parts."""
    found = [message["instructions"] for message in _mappings(messages) if message.get("instructions")]
    return [_text(found[-1])] if found else []


def text_message(role: str, text: str) -> Message:
    return {"role": role, "parts": [_text(text)]}


def _role(part: Mapping[str, Any]) -> str:
    if part.get("part_kind") == "retry-prompt" and part.get("tool_name"):
        return "tool"
    return _ROLES.get(str(part.get("part_kind")), "user")


def _told(part: Mapping[str, Any]) -> list[Message]:
    if _role(part) == "tool":
        return [{"type": "tool_call_response", "id": part.get("tool_call_id"), "response": part.get("content")}]
    match part.get("content"):
        case str() as text:
            return [_text(text)]
        case list() as content:
            return [_text(each) if isinstance(each, str) else _media(each) for each in content]
    return [_other(part)]


def _said(part: Mapping[str, Any]) -> Message:
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


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; a redaction may have left other things in it, or no list."""
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
