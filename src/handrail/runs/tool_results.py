"""What a tool returned, as the model is sent it and as the store keeps it; neither is a reason for a run to end."""

import dataclasses
import json
from typing import Any

from pydantic_ai import ToolReturn

from handrail.kernel.serialization import as_json, limit_json, to_plain

UNWRITABLE = "(a result that cannot be written as text)"
"""What stands for a result whose own code fails when it is written."""


def sendable(result: Any) -> Any:
    """The result as it is, unless Pydantic AI could not write it into a request: then what can be written of it.

    Args:
        result: What a tool returned.
    """
    try:
        return _sendable(result)
    except Exception:  # noqa: BLE001 - the tool has acted, and whatever it returned must not hide that
        return UNWRITABLE


def _sendable(result: Any) -> Any:
    if isinstance(result, ToolReturn):
        metadata = result.metadata if to_plain(result.metadata)[1] else limit_json(result.metadata)
        content = result.content if to_plain(result.content)[1] else as_json(result.content).decode()
        return_value = _writable(result.return_value)
        return dataclasses.replace(result, return_value=return_value, content=content, metadata=metadata)
    return _writable(result)


def storable(result: Any) -> Any:
    """What the store keeps of a result: plain and bounded values, which stand in for it if the run is resumed.

    Args:
        result: What a tool returned.
    """
    try:
        if not isinstance(result, ToolReturn):
            return limit_json(result)
        if not result.content:
            return limit_json(result.return_value)
        return limit_json({"return_value": result.return_value, "content": result.content})
    except Exception:  # noqa: BLE001 - as above
        return UNWRITABLE


def _writable(value: Any) -> Any:
    plain, complete = to_plain(value)
    # Written also if nothing is lost: a number may have more digits than Python writes.
    body = as_json(plain)
    return value if complete else json.loads(body)
