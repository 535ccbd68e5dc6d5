"""What a tool returned, as the model is sent it and as the store keeps it; neither is a reason for a run to end."""

import dataclasses
import json
from typing import Any

from pydantic_ai import ToolReturn

from handrail.kernel.serialization import as_json, limit_json, to_plain


def sendable(result: Any) -> Any:
    """The result as it is, unless Pydantic AI could not write it into a request: then what can be written of it.

    Args:
        result: What a tool returned.
    """
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
    if not isinstance(result, ToolReturn):
        return limit_json(result)
    if not result.content:
        return limit_json(result.return_value)
    return limit_json({"return_value": result.return_value, "content": result.content})


def _writable(value: Any) -> Any:
    plain, complete = to_plain(value)
    return value if complete else json.loads(as_json(plain))
