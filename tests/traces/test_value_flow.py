"""The values in a payload: inputs and outputs."""

from typing import Any

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart

from handrail.traces.analysis.value_flow import ValueSet, requested_tool_calls, span_values


def outputs(payload: dict[str, Any]) -> ValueSet:
    values = span_values(payload).outputs
    assert values is not None
    return values


def test_names() -> None:
    """Inputs and outputs are found under the keys of each kind of span."""
    for input_key, output_key in (
        ("arguments", "result"),
        ("input", "output"),
        ("messages", "response"),
        ("input", "outcome"),
    ):
        values = span_values({input_key: "sent", output_key: "received"})
        assert values.inputs is not None
        assert values.outputs is not None
        assert values.inputs.whole == {"sent"}
        assert values.outputs.whole == {"received"}
    assert span_values({"error": "x"}).inputs is span_values({}).outputs is None


def test_values() -> None:
    """Values are texts and numbers at any depth; true, false and null are not, and short ones are separate."""
    values = outputs({"result": [{"a": {"b": ["Some Text", 1042, 7, True, None, "no", 99.5]}}]})
    assert values.whole == {"some text", "1042", "99.5"}
    assert values.short == {"7", "no"}
    assert values.words == {"some", "text", "1042"}


def test_json_in_a_text() -> None:
    """A text that is a JSON document is parsed; one that only starts like one is a text."""
    assert outputs({"result": '{"customer": "c-1042"}'}).whole == {"c-1042"}
    assert outputs({"result": "[draft"}).whole == {"[draft"}


def test_keys_that_are_ids() -> None:
    """The keys of a document are not values, unless they contain a number of 3 digits or more."""
    assert outputs({"result": {"customer": 1_000, "c-1042": 2_000}}).whole == {"c-1042", "1000", "2000"}


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
def test_model_responses(response: Any) -> None:
    """In a response of any client only the content counts; its tool calls are identified by their ids."""
    values = outputs({"response": response})
    assert {"hello there", "1042"} <= values.whole
    assert not values.words & {"text", "tool", "call", "find", "order", "assistant"}
    assert "call-77" in requested_tool_calls({"response": response})


def test_model_messages() -> None:
    """In the messages to a model only their content counts."""
    values = span_values({"messages": [ModelRequest([UserPromptPart("Where is parcel 31-77?")])]}).inputs
    assert values is not None
    assert values.contains("parcel")
    assert values.contains("31-77")
    assert not values.contains("user")


def test_type_is_a_value_inside_arguments() -> None:
    """A key that describes a message outside of arguments is a value inside them."""
    values = outputs({"response": [{"part_kind": "tool-call", "args": {"type": "refund", "role": "clerk"}}]})
    assert values.whole == {"refund", "clerk"}
