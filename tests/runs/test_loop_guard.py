"""The limits beyond which a run counts as looping."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.runs.loop_guard import MAX_IDENTICAL_CALLS, MAX_REQUESTS, LoopGuard, Looping

arguments = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.text("xy", max_size=1), max_size=3)
circle: dict[str, Any] = {}
circle["self"] = circle


def test_requests() -> None:
    """Fifteen model requests are allowed, and a sixteenth raises Looping."""
    guard = LoopGuard()
    for _ in range(MAX_REQUESTS):
        guard.count_request()
    with pytest.raises(Looping, match="15 model requests"):
        guard.count_request()


@given(st.lists(st.tuples(st.sampled_from(["find", "list"]), arguments), max_size=30))
def test_tool_calls(tool_calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Calls pass as long as none is the third of the same tool with the same arguments."""
    guard = LoopGuard()
    counted: list[tuple[str, dict[str, Any]]] = []
    for tool, arguments in tool_calls:
        if counted.count((tool, arguments)) == MAX_IDENTICAL_CALLS:
            with pytest.raises(Looping, match=tool):
                guard.count_tool_call(tool, arguments)
            return
        guard.count_tool_call(tool, arguments)
        counted.append((tool, arguments))


@pytest.mark.parametrize("value", [b"\xff", "\ud800", float("nan"), object(), circle])
def test_arguments_of_any_type(value: object) -> None:
    """Arguments that JSON cannot represent are compared too."""
    guard = LoopGuard()
    for _ in range(MAX_IDENTICAL_CALLS):
        guard.count_tool_call("find", {"value": value})
    guard.count_tool_call("find", {"value": 1})
    with pytest.raises(Looping):
        guard.count_tool_call("find", {"value": value})


def test_order_of_arguments() -> None:
    """The same arguments in another order are the same call."""
    guard = LoopGuard()
    guard.count_tool_call("find", {"a": 1, "b": 2})
    guard.count_tool_call("find", {"b": 2, "a": 1})
    with pytest.raises(Looping):
        guard.count_tool_call("find", {"a": 1, "b": 2})
