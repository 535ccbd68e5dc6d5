"""When a run counts as going round in circles."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.runs.loop_guard import MAX_REQUESTS, MAX_SAME_CALLS, LoopGuard, Looping

arguments = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.text("xy", max_size=1), max_size=3)
circle: dict[str, Any] = {}
circle["self"] = circle


def test_requests() -> None:
    """Fifteen model requests are allowed, and the sixteenth is not made."""
    guard = LoopGuard()
    for _ in range(MAX_REQUESTS):
        guard.request()
    with pytest.raises(Looping, match="15 model requests"):
        guard.request()


@given(st.lists(st.tuples(st.sampled_from(["find", "list"]), arguments), max_size=30))
def test_calls(made: list[tuple[str, dict[str, Any]]]) -> None:
    """Calls pass as long as none of them is a third one of the same tool with the same arguments."""
    guard = LoopGuard()
    seen: list[tuple[str, dict[str, Any]]] = []
    for tool, given_ in made:
        if seen.count((tool, given_)) == MAX_SAME_CALLS:
            with pytest.raises(Looping, match=tool):
                guard.call(tool, given_)
            return
        guard.call(tool, given_)
        seen.append((tool, given_))


@pytest.mark.parametrize("value", [b"\xff", "\ud800", float("nan"), object(), circle])
def test_any_argument_can_be_compared(value: object) -> None:
    """Arguments that JSON cannot hold are compared too."""
    guard = LoopGuard()
    for _ in range(MAX_SAME_CALLS):
        guard.call("find", {"value": value})
    guard.call("find", {"value": 1})
    with pytest.raises(Looping):
        guard.call("find", {"value": value})


def test_order_of_arguments() -> None:
    """The same arguments in another order are the same call."""
    guard = LoopGuard()
    guard.call("find", {"a": 1, "b": 2})
    guard.call("find", {"b": 2, "a": 1})
    with pytest.raises(Looping):
        guard.call("find", {"a": 1, "b": 2})
