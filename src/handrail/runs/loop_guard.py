"""Stops a run that repeats itself before it spends the rest of its budget."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

MAX_REQUESTS = 15
"""Model requests in one run. Pydantic AI's own `usage_limits` can set fewer, never more."""
MAX_IDENTICAL_CALLS = 2
"""Calls of one tool with the same arguments in one run: the second may follow a change, a third never helps."""


class Looping(Exception):
    """The run repeats itself; its next step is not executed."""


class LoopGuard:
    """Counts one run's model requests and tool calls.

    Args:
        requests: How many model requests the run made before it was resumed.
    """

    def __init__(self, requests: int = 0) -> None:
        self._requests = requests
        self._calls = Counter[tuple[str, bytes]]()

    def count_request(self) -> None:
        """Counts one more model request. Raises Looping if the run has made MAX_REQUESTS."""
        if self._requests == MAX_REQUESTS:
            raise Looping(f"{MAX_REQUESTS} model requests, and the run has not ended")
        self._requests += 1

    def count_tool_call(self, tool: str, arguments: Mapping[str, Any], earlier: int = 0) -> None:
        """Counts one more call of a tool.

        Args:
            tool: The tool's name.
            arguments: Its arguments.
            earlier: How many identical calls the run made before it was resumed.

        Raises:
            Looping: If there were MAX_IDENTICAL_CALLS calls with the same arguments already.
        """
        key = (tool, _serialize_arguments(arguments))
        if self._calls[key] + earlier >= MAX_IDENTICAL_CALLS:
            raise Looping(f"{tool} was called {MAX_IDENTICAL_CALLS} times with the same arguments, and is called again")
        self._calls[key] += 1


def _serialize_arguments(arguments: Mapping[str, Any]) -> bytes:
    try:
        return to_json(dict(sorted(arguments.items())), bytes_mode="base64", fallback=repr)
    except PydanticSerializationError:
        # Text that is not valid Unicode, or a value that contains itself: a tool can be called with either.
        return repr(arguments).encode("utf-8", "backslashreplace")
