"""Which values a payload holds: what was given, and what came of it."""

from typing import Any

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart

from handrail.traces.analysis.value_flow import Values, asked_for, read_said


def gave(payload: dict[str, Any]) -> Values:
    found = read_said(payload).gave
    assert found is not None
    return found


def test_names() -> None:
    """What went in and what came out is found under the names that each kind of span has for it."""
    for given, come in (("arguments", "result"), ("input", "output"), ("messages", "response"), ("input", "outcome")):
        said = read_said({given: "went in", come: "came out"})
        assert said.given is not None
        assert said.gave is not None
        assert said.given.whole == {"went in"}
        assert said.gave.whole == {"came out"}
    assert read_said({"error": "x"}).given is read_said({}).gave is None


def test_values() -> None:
    """Values are texts and numbers, at any depth; true, false and null are none, and short ones are kept apart."""
    found = gave({"result": [{"a": {"b": ["Some Text", 1042, 7, True, None, "no", 99.5]}}]})
    assert found.whole == {"some text", "1042", "99.5"}
    assert found.short == {"7", "no"}
    assert found.words == {"some", "text", "1042"}


def test_json_in_a_text() -> None:
    """A text that is a JSON document is read as what it says; one that only begins like one is a text."""
    assert gave({"result": '{"customer": "c-1042"}'}).whole == {"c-1042"}
    assert gave({"result": "[draft"}).whole == {"[draft"}


def test_names_that_are_ids() -> None:
    """The names in a document say nothing, unless there is a number of 3 digits or more in them."""
    assert gave({"result": {"customer": 1_000, "c-1042": 2_000}}).whole == {"c-1042", "1000", "2000"}


@pytest.mark.parametrize(
    "response",
    [
        [TextPart("Hello there"), ToolCallPart("find_order", {"number": 1042}, tool_call_id="call-77")],
        ModelResponse(
            [TextPart("Hello there"), ToolCallPart("find_order", '{"number": 1042}', tool_call_id="call-77")]
        ),
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "text", "content": "Hello there"},
                    {"type": "tool_call", "id": "call-77", "name": "find_order", "arguments": {"number": 1042}},
                ],
            }
        ],
        [
            {
                "role": "assistant",
                "content": "Hello there",
                "tool_calls": [{"id": "call-77", "function": {"name": "find_order", "arguments": '{"number": 1042}'}}],
            }
        ],
    ],
)
def test_what_a_model_said(response: Any) -> None:
    """Of a response only what it says counts, whoever wrote it down; its calls are known by their ids."""
    found = gave({"response": response})
    assert {"hello there", "1042"} <= found.whole
    assert not found.words & {"text", "tool", "call", "find", "order", "assistant"}
    assert "call-77" in asked_for({"response": response})


def test_what_a_model_was_told() -> None:
    """Of the messages to a model what users and tools said counts."""
    said = read_said({"messages": [ModelRequest([UserPromptPart("Where is parcel 31-77?")])]}).given
    assert said is not None
    assert said.holds("parcel")
    assert said.holds("31-77")
    assert not said.holds("user")


def test_type_is_a_value_inside_arguments() -> None:
    """What is a message's frame may be a value in what it says."""
    found = gave({"response": [{"part_kind": "tool-call", "args": {"type": "refund", "role": "clerk"}}]})
    assert found.whole == {"refund", "clerk"}
