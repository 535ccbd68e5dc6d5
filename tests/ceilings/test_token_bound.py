"""The bound on input tokens is never below the count of a tokenizer."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, DocumentUrl, ImageUrl, ModelMessage, NativeOutput, WebSearchTool
from pydantic_ai.messages import (
    AudioUrl,
    CachePoint,
    InstructionPart,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryInfo,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
    VideoUrl,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from handrail.ceilings.token_bound import input_bound

NONE = ModelRequestParameters()
PLAIN = st.text(st.characters(exclude_categories=["Cs"]))
ANY = st.text(st.characters())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=12,
)


@cache
def _tokenizer() -> Tokenizer:
    """A byte-level BPE like that of GPT-2, trained on two lines, so that most texts have many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["Where is order 1042? It is on its way.", '{"order": "1042"}'], trainer)
    return tokenizer


def _tokens(text: str) -> int:
    return len(_tokenizer().encode(text).ids)


def _bound(*messages: ModelMessage, parameters: ModelRequestParameters = NONE) -> int:
    bound = input_bound(messages, parameters)
    assert bound is not None
    return bound


def _user_message(*content: Any) -> ModelRequest:
    return ModelRequest([UserPromptPart(content)])


def _conversation(text: str) -> list[ModelMessage]:
    """A conversation with `text` in every place that can have text."""
    return [
        ModelRequest([SystemPromptPart(text), UserPromptPart(text), UserPromptPart([text, TextContent(text)])]),
        ModelResponse([ThinkingPart(text, signature=text), TextPart(text), ToolCallPart("f", {"a": text})]),
        ModelRequest([ToolReturnPart("f", text, tool_call_id="1")]),
        ModelResponse([ToolCallPart("f", text, tool_call_id="1")]),
        ModelRequest([RetryFeedbackPart(text, retry=RetryInfo(cause="model_retry"))]),
    ]


def test_the_tokenizer_of_these_tests() -> None:
    """The tokenizer merges bytes of known words, and falls back to bytes."""
    assert _tokens("Where is order") < len("Where is order")
    assert _tokens("😀") >= 4


@given(PLAIN)
def test_texts_have_at_most_as_many_tokens_as_the_bound(text: str) -> None:
    """A text adds at least its tokens to the bound, once for each of its nine places."""
    assert _bound(*_conversation(text)) - _bound(*_conversation("")) >= 9 * (_tokens(text) - 1)
    assert _bound(_user_message(text)) >= _tokens(text)


@given(ANY)
def test_lone_surrogates_are_counted(text: str) -> None:
    """Text that UTF-8 cannot encode has a bound of at least one token per character."""
    assert _bound(*_conversation(text)) - _bound(*_conversation("")) >= 9 * len(text)


@given(JSON, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_values_have_at_most_as_many_tokens_as_the_bound(
    value: Any, separators: tuple[str, str], escaped: bool
) -> None:
    """Arguments, results and schemas are within the bound in any JSON formatting of a provider."""
    tokens = _tokens(json.dumps(value, separators=separators, ensure_ascii=escaped))
    schema = ToolDefinition(name="f", parameters_json_schema={"type": "object", "default": value})
    for message in (
        ModelResponse([ToolCallPart("f", {"value": value})]),
        ModelRequest([ToolReturnPart("f", {"value": value}, tool_call_id="1")]),
        ModelRequest([ToolReturnPart("f", value, tool_call_id="1")]),
    ):
        assert _bound(message) >= tokens
    assert _bound(parameters=ModelRequestParameters(function_tools=[schema])) >= tokens
    assert _bound(parameters=ModelRequestParameters(output_tools=[schema])) >= tokens
    output = OutputObjectDefinition({"type": "object", "default": value})
    assert _bound(parameters=ModelRequestParameters(output_object=output)) >= tokens


@given(JSON)
def test_errors_have_at_most_as_many_tokens_as_the_bound(value: Any) -> None:
    """A failed tool result is sent as an object around its text, with nested quotes, and is within the bound."""
    part = ToolReturnPart("f", value, tool_call_id="1", outcome="failed")
    plain = ToolReturnPart("f", [], tool_call_id="1", outcome="failed")
    grown = _bound(ModelRequest([part])) - _bound(ModelRequest([plain]))
    assert grown >= _tokens(part.model_response_str()) - _tokens(plain.model_response_str())


def test_every_place_counts() -> None:
    """Long text in any single place of a request increases the bound."""
    long = "x" * 10_000
    places: list[tuple[Sequence[ModelMessage], ModelRequestParameters]] = [
        ([ModelRequest([], instructions=long)], NONE),
        ([], ModelRequestParameters(instruction_parts=[InstructionPart(content=long)])),
        ([], ModelRequestParameters(prompted_output_template=long)),
        ([], ModelRequestParameters(function_tools=[ToolDefinition(name="f", description=long)])),
        ([], ModelRequestParameters(output_object=OutputObjectDefinition({}, description=long))),
        ([ModelRequest([ToolReturnPart("f", [1, long], tool_call_id="1")])], NONE),
        ([ModelRequest([UserPromptPart([TextContent(long)])])], NONE),
        ([ModelResponse([ThinkingPart("", signature=long)])], NONE),
    ]
    for messages, parameters in places:
        assert 10_000 <= _bound(*messages, parameters=parameters) < 15_000


def test_instructions_of_a_history_are_counted_once() -> None:
    """Instructions that a history repeats with each request count once, since they are sent once."""
    requests = [ModelRequest([UserPromptPart("Hello")], instructions="x" * 1_000) for _ in range(9)]
    assert _bound(*requests) < 5_000


def test_definitions_are_counted_where_they_are_used() -> None:
    """A definition counts once for each use, as for models that cannot resolve references."""
    big = {"type": "string", "description": "x" * 1_000}
    properties = {f"p{n}": {"$ref": "#/$defs/big"} for n in range(9)}
    schema = {"type": "object", "properties": properties, "$defs": {"big": big}}
    assert (
        _bound(
            parameters=ModelRequestParameters(function_tools=[ToolDefinition(name="f", parameters_json_schema=schema)])
        )
        > 9_000
    )


def test_return_schemas_count_only_if_sent() -> None:
    """A tool's return schema counts only if it is included in the request."""
    returns = {"type": "string", "description": "x" * 10_000}
    for included, limit in ((True, 15_000), (False, 5_000), (None, 5_000)):
        tool = ToolDefinition(name="f", return_schema=returns, include_return_schema=included)
        assert limit - 5_000 <= _bound(parameters=ModelRequestParameters(function_tools=[tool])) < limit


class _Node(BaseModel):
    children: "list[_Node]"


def test_a_recursive_schema() -> None:
    """A recursive schema has a bound."""
    assert (
        _bound(
            parameters=ModelRequestParameters(
                output_tools=[ToolDefinition(name="f", parameters_json_schema=_Node.model_json_schema())]
            )
        )
        > 0
    )


def test_an_image_has_an_allowance() -> None:
    """An image has the same allowance as bytes or as a URL, and a cache point counts almost nothing."""
    image = BinaryContent(b"\x89PNG" + bytes(10**6), media_type="image/png")
    by_address = ImageUrl("https://example.com/a.png")
    assert _bound(_user_message(image)) == _bound(_user_message(by_address)) < 10_000
    returned = ModelRequest([ToolReturnPart("f", ["see", by_address], tool_call_id="1")])
    assert _bound(returned) - _bound(ModelRequest([ToolReturnPart("f", ["see"], tool_call_id="1")])) >= 4_784
    assert _bound(_user_message("a", CachePoint())) < 2_000


@pytest.mark.parametrize(
    "content",
    [
        DocumentUrl("https://example.com/a.pdf"),
        AudioUrl("https://example.com/a.mp3"),
        VideoUrl("https://example.com/a.mp4"),
        BinaryContent(b"%PDF", media_type="application/pdf"),
        BinaryContent(b"RIFF", media_type="audio/wav"),
    ],
    ids=lambda content: f"{type(content).__name__}-{content.media_type}",
)
def test_content_without_a_bound(content: Any) -> None:
    """Documents, audio and video have no bound, from a user or from a tool."""
    assert input_bound([_user_message("See", content)], NONE) is None
    assert input_bound([ModelRequest([ToolReturnPart("f", ["a", content], tool_call_id="1")])], NONE) is None


def test_provider_tools_have_no_bound() -> None:
    """Results of the provider's own tools become input of unknown size."""
    assert input_bound([_user_message("See")], ModelRequestParameters(native_tools=[WebSearchTool()])) is None


async def test_a_real_request_has_a_bound() -> None:
    """A request of Pydantic AI with retries, tools and schemas has a bound, which grows with each message."""
    bounds: list[int | None] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        bounds.append(input_bound(messages, info.model_request_parameters))
        if len(bounds) == 1:
            return ModelResponse([ToolCallPart("find", {"number": "1042"})])
        return ModelResponse([TextPart("no JSON" if len(bounds) == 2 else '{"children": []}')])

    agent = Agent(FunctionModel(model), output_type=NativeOutput(_Node), instructions="Be brief.", retries=2)

    @agent.tool_plain
    def find(number: str) -> dict[str, str]:
        return {"found": number}

    await agent.run("Where is it?")
    first, second, third = bounds
    assert first is not None
    assert second is not None
    assert third is not None
    assert 0 < first < second < third < 15_000
