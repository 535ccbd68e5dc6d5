"""Stops a run that goes round in circles, before it burns what is left of its budget."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

MAX_REQUESTS = 15
"""Model requests in one run. Pydantic AI's own `usage_limits` may set less, never more."""
MAX_SAME_CALLS = 2
"""Calls of one tool with the same arguments in one run: the second may follow a change, the third never helps."""


class Looping(Exception):
    """The run repeats itself; what it would do next is not done."""


class LoopGuard:
    """Counts what one run does."""

    def __init__(self, requests: int = 0) -> None:
        """`requests` were made already, before the run was carried on here."""
        self._requests = requests
        self._calls = Counter[tuple[str, bytes]]()

    def request(self) -> None:
        """One more model request. Raises Looping instead of the one after the last allowed."""
        if self._requests == MAX_REQUESTS:
            raise Looping(f"{MAX_REQUESTS} model requests without an end")
        self._requests += 1

    def call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """One more call of a tool. Raises Looping instead of the one after the last allowed."""
        key = (tool, _written(arguments))
        if self._calls[key] == MAX_SAME_CALLS:
            raise Looping(f"{tool} was called {MAX_SAME_CALLS} times with the same arguments, and once more")
        self._calls[key] += 1


def _written(arguments: Mapping[str, Any]) -> bytes:
    try:
        return to_json(dict(sorted(arguments.items())), bytes_mode="base64", fallback=repr)
    except PydanticSerializationError:
        # Text that is not Unicode, a value that holds itself: nothing that a tool could not be called with.
        return repr(arguments).encode("utf-8", "backslashreplace")
