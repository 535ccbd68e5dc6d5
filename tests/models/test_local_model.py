"""The built-in model: rendering of conversations, reply formats, and runs with the real weights."""

import asyncio
import json
from typing import Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, ModelSettings, ToolDefinition
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelRequestRejectedError, ModelTimeoutError
from pydantic_ai.messages import (
    ImageUrl,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters, override_allow_model_requests
from pydantic_ai.output import OutputObjectDefinition

from handrail.config.sources import load_settings
from handrail.models.local.catalog import SMALL
from handrail.models.local.chat import render
from handrail.models.local.grammar import (
    MAX_STRING_LENGTH,
    BoundedSchema,
    ReplyFormat,
    build_grammar,
    parse_reply,
    repeated_tools,
    reply_formats,
    type_notation,
)
from handrail.models.local.model import BuiltinModel
from handrail.models.local.weights import find_weights

FIND = ToolDefinition(
    name="find_order",
    description="Find an order.",
    parameters_json_schema={"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
)
FINAL = ToolDefinition(name="final_result", parameters_json_schema={"type": "object", "properties": {}}, kind="output")
TALK = ModelRequestParameters(function_tools=[FIND], allow_text_output=True)
TRIAGE = ModelRequestParameters(function_tools=[FIND], output_tools=[FINAL], allow_text_output=False)


def keys(formats: list[ReplyFormat]) -> list[str]:
    return [reply_format.key for reply_format in formats]


def test_reply_formats() -> None:
    """A request offers its tools, and text, an output tool or a structured answer, depending on its output."""
    native = ModelRequestParameters(
        output_mode="native",
        output_object=OutputObjectDefinition(json_schema={"type": "object"}),
        allow_text_output=True,
    )
    assert keys(reply_formats(TALK, None)) == ["find_order", "reply"]
    assert keys(reply_formats(TRIAGE, None)) == ["find_order", "final_result"]
    assert keys(reply_formats(native, None)) == ["answer"]


def test_tool_choice() -> None:
    """The tool choice in the settings removes function tools or text from the reply formats."""
    assert keys(reply_formats(TALK, ModelSettings(tool_choice="none"))) == ["reply"]
    assert keys(reply_formats(TALK, ModelSettings(tool_choice="required"))) == ["find_order"]
    assert keys(reply_formats(TRIAGE, ModelSettings(tool_choice=["find_order"]))) == ["find_order", "final_result"]


def test_repeated_calls() -> None:
    """A tool called twice with the same arguments is left out, until the user's next message."""
    question = ModelRequest(parts=[UserPromptPart("Where?")])
    first, second = (ModelResponse(parts=[ToolCallPart("find_order", {"id": order})]) for order in ("A-1", "A-2"))
    result = ModelRequest(parts=[ToolReturnPart("find_order", "sent")])
    assert repeated_tools([question, first, result, second]) == set()
    assert repeated_tools([question, first, result, second, result, first]) == {"find_order"}
    assert repeated_tools([question, first, result, first, question]) == set()


def test_schema_is_bounded() -> None:
    """References are inlined, strings without a limit get one, and unsupported patterns are dropped."""
    schema = BoundedSchema(
        {
            "$defs": {"Kind": {"enum": ["a", "b"], "type": "string", "title": "Kind"}},
            "type": "object",
            "properties": {
                "kind": {"$ref": "#/$defs/Kind"},
                "note": {"type": "string"},
                "amount": {"type": "string", "pattern": "^(?!x)[0-9]+$"},
                "id": {"type": "string", "pattern": "^A-[0-9]{4}$"},
            },
        }
    ).walk()
    assert schema["properties"] == {
        "kind": {"enum": ["a", "b"], "type": "string"},
        "note": {"type": "string", "maxLength": MAX_STRING_LENGTH},
        "amount": {"type": "string", "maxLength": MAX_STRING_LENGTH},
        "id": {"type": "string", "pattern": "^A-[0-9]{4}$"},
    }


def test_type_notation() -> None:
    """A schema is shown to the model like a type, with its descriptions."""
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"], "description": "what it is"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        },
        "required": ["kind"],
    }
    assert type_notation(schema) == '{kind: "a" | "b" /* what it is */, tags?: [string, ...], due?: date | null}'


def test_grammar_keeps_recursive_definitions() -> None:
    """Definitions that a format still refers to are at the grammar's root, where its references point."""
    tree = {"$ref": "#/$defs/Tree", "$defs": {"Tree": {"type": "object"}}}
    grammar = json.loads(build_grammar([ReplyFormat("answer", tree, "")]).partition("%json ")[2])
    assert grammar["$defs"] == tree["$defs"]
    assert grammar["anyOf"][0]["properties"] == {"answer": {"$ref": "#/$defs/Tree"}}


def test_reply_becomes_a_part() -> None:
    """A reply becomes a tool call or text; a reply in no offered format is an error."""
    formats = reply_formats(TALK, None)
    call = parse_reply('{"find_order":{"id":"A-1"}}', formats)
    assert isinstance(call, ToolCallPart)
    assert (call.tool_name, call.args) == ("find_order", {"id": "A-1"})
    assert parse_reply('{"reply":"hi"}', formats) == TextPart("hi")
    for wrong in ('{"other":1}', '{"reply":"a","find_order":{}}', "[]", '{"reply'):
        with pytest.raises(ValueError, match=r"reply|Unterminated"):
            parse_reply(wrong, formats)


def test_rendering() -> None:
    """A conversation is rendered with its constant parts first, and tool calls in the reply formats."""
    parameters = ModelRequestParameters(
        function_tools=[FIND],
        instruction_parts=[InstructionPart(content="Be kind."), InstructionPart(content="It is Monday.", dynamic=True)],
    )
    messages: list[ModelMessage] = [
        ModelRequest(parts=[SystemPromptPart("You sort mail."), UserPromptPart("Where is A-1?")]),
        ModelResponse(parts=[ToolCallPart("find_order", '{"id": "A-1"}')]),
        ModelRequest(parts=[ToolReturnPart("find_order", {"state": "sent"})]),
        ModelResponse(parts=[TextPart("On its way.")]),
        ModelRequest(parts=[UserPromptPart(["Thanks", "!"])]),
    ]
    system, *turns = render(messages, parameters, reply_formats(parameters, None), "m")
    assert system["content"].startswith("You sort mail.\n\nBe kind.\n\nAnswer with exactly one JSON object")
    assert system["content"].endswith("// a message to the user\n\nIt is Monday.")
    assert turns == [
        {"role": "user", "content": "Where is A-1?"},
        {"role": "assistant", "content": '{"find_order":{"id":"A-1"}}'},
        {"role": "user", "content": 'find_order returned: {"state":"sent"}'},
        {"role": "assistant", "content": '{"reply":"On its way."}'},
        {"role": "user", "content": "Thanks\n!"},
    ]


def test_images_are_refused() -> None:
    """A part that is not text is refused by name, so that another model or the fallback takes the request."""
    messages: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart([ImageUrl("https://example.org/a.png")])])]
    with pytest.raises(ModelRequestRejectedError, match="reads text only, and was given a ImageUrl"):
        render(messages, TALK, reply_formats(TALK, None), "m")


class Triage(BaseModel):
    category: Literal["delivery", "refund", "other"]
    order: str


@pytest.fixture(scope="module")
def model() -> BuiltinModel:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install 'handrail[local]'")
    path = find_weights(SMALL, load_settings())
    if path is None:
        pytest.skip("the 0.5B weights are not on this machine; HANDRAIL_WEIGHTS names a copy")
    return BuiltinModel(SMALL, path)


def test_real_run(model: BuiltinModel) -> None:
    """The real model calls a tool, gets an error, and ends in output of the declared type, with a cached prefix."""
    attempts = []

    def find_order(order_id: str) -> str:
        """Find an order by its id."""
        attempts.append(order_id)
        if len(attempts) == 1:
            raise ModelRetry("The order desk is busy. Try again.")
        return "sent on Monday"

    agent = Agent(
        model, output_type=Triage, tools=[find_order], instructions="Find the order first, then sort the message."
    )
    with override_allow_model_requests(True):
        run = asyncio.run(agent.run("Where is my order A-1001?"))
    assert isinstance(run.output, Triage)
    assert run.usage.output_tokens > 0
    assert run.usage.cache_read_tokens > 0 or run.usage.requests == 1


@pytest.mark.slow
def test_real_limits(model: BuiltinModel) -> None:
    """A late request ends in a timeout and one beyond the context window in an error; the next one is answered."""
    agent = Agent(model)

    async def runs() -> str:
        with pytest.raises(ModelTimeoutError, match=r"no answer within 0\.05 s"):
            await agent.run("Tell a long story.", model_settings=ModelSettings(timeout=0.05))
        with pytest.raises(ModelContextWindowExceededError):
            await agent.run("word " * 9000)
        return (await agent.run("Say hello.")).output

    with override_allow_model_requests(True):
        assert asyncio.run(runs())
