"""The bound on input tokens is never below the count of a tokenizer."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, DocumentUrl, ImageUrl, ModelMessage, NativeOutput, RequestUsage
from pydantic_ai.messages import (
    AudioUrl,
    CachePoint,
    InstructionPart,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryInfo,
    SpeechPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolAvailabilityDeltaPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
    VideoUrl,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer
from pydantic_ai.tools import ToolDefinition
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from handrail.ceilings.token_bound import NOTE, InputBound, input_bound
from handrail.models.image_tokens import image_tokens

NONE = ModelRequestParameters()
MODEL = TestModel(model_name="claude-sonnet-4-5", profile=ModelProfile(context_window=None))
"""A model that reads images and has no known context window."""
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
    bound = input_bound(messages, parameters, MODEL)
    assert bound.unbounded == ()
    return bound.tokens


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
    ("content", "name"),
    [
        (DocumentUrl("https://example.com/a.pdf"), "a document"),
        (AudioUrl("https://example.com/a.mp3"), "audio"),
        (VideoUrl("https://example.com/a.mp4"), "a video"),
        (BinaryContent(b"%PDF", media_type="application/pdf"), "a document"),
        (BinaryContent(b"RIFF", media_type="audio/wav"), "audio"),
        (BinaryContent(b"0000", media_type="video/mp4"), "a video"),
        (UploadedFile("file-1", provider_name="openai"), "an uploaded file"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_content_without_a_bound(content: Any, name: str) -> None:
    """Documents, audio, video and uploaded files have no bound, from a user or from a tool; the rest keeps its own."""
    for message in (
        _user_message("See" * 1_000, content),
        ModelRequest([ToolReturnPart("f", ["See" * 1_000, content], tool_call_id="1")]),
        ModelRequest([ToolReturnPart("f", content, tool_call_id="1"), UserPromptPart("See" * 1_000)]),
    ):
        bound = input_bound([message], NONE, MODEL)
        assert bound.unbounded == (name,)
        assert 3_000 < bound.tokens < 10_000


def test_a_context_window_bounds_everything() -> None:
    """A request costs no more than the model's context window, since a longer one is rejected."""
    model = TestModel(model_name="claude-sonnet-4-5", profile=ModelProfile(context_window=20_000))
    document = DocumentUrl("https://example.com/a.pdf")
    assert input_bound([_user_message("See", document)], NONE, model) == InputBound(20_000)
    assert input_bound([_user_message("x" * 30_000)], NONE, model) == InputBound(20_000)
    assert input_bound([_user_message("See")], NONE, model).tokens < 2_000


def test_a_context_window_does_not_bound_images_that_are_billed_beyond_it() -> None:
    """GPT-4o mini bills an image for 33 times its tokens, so three images may cost more than its window."""
    model = TestModel(model_name="gpt-4o-mini", profile=ModelProfile(context_window=128_000))
    pictures = [ImageUrl(f"https://example.com/{n}.png") for n in range(3)]
    assert input_bound([_user_message(*pictures)], NONE, model).tokens > 3 * 48_169
    document = DocumentUrl("https://example.com/a.pdf")
    assert input_bound([_user_message(document)], NONE, model).unbounded == ("a document",)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o-mini-2024-07-18", 48_169),
        ("ft:gpt-4o-mini:acme", 48_169),
        ("gpt-4o", 5_000),
        ("gpt-4.1-nano", 5_000),
        ("o3", 5_000),
        ("gpt-5-mini", 5_000),
        ("gpt-5.1", 5_000),
        ("openai/gpt-5.4-nano", 24_600),
        ("us.anthropic.claude-opus-4-6-v1:0", 5_000),
        ("gemini-3-pro-preview", 5_000),
        ("pixtral-12b", 5_000),
        ("grok-4", 5_000),
        ("qwen3-vl", None),
        ("llama-4-scout", None),
        ("gpt-3.5-turbo", None),
        ("my-deployment", None),
    ],
)
def test_the_tokens_of_an_image(model: str, tokens: int | None) -> None:
    """An image's bound is by its model; for a model of which nobody publishes it, the image has none."""
    assert image_tokens(model) == tokens
    reader = TestModel(model_name=model, profile=ModelProfile(context_window=None))
    bound = input_bound([_user_message(BinaryContent(b"", media_type="image/png"))], NONE, reader)
    assert bound.unbounded == (() if tokens else ("an image",))
    assert bound.tokens > (tokens or 5_000)


def test_a_file_counts_with_its_name() -> None:
    """A file's name is announced to the model, so a long one counts, twice more where a tool returned the file."""
    long = "x" * 10_000
    picture = ImageUrl("https://example.com/a.png", identifier=long)
    assert _bound(_user_message(picture)) > 10_000
    named = ToolReturnPart(long, [ImageUrl("https://example.com/a.png")], tool_call_id="1")
    assert _bound(ModelRequest([named])) > 30_000


def test_a_text_file_has_a_bound() -> None:
    """A file of plain text has at most as many tokens as bytes."""
    note = BinaryContent(b"x" * 10_000, media_type="text/plain")
    assert 10_000 < _bound(_user_message(note)) < 15_000


def test_speech_counts_as_its_transcript() -> None:
    """Speech counts as its text; its sound has no bound."""
    assert _bound(ModelResponse([SpeechPart(speaker="assistant", transcript="x" * 10_000)])) > 10_000
    spoken = SpeechPart(speaker="user", audio=BinaryContent(b"RIFF", media_type="audio/wav"))
    assert input_bound([ModelRequest([spoken])], NONE, MODEL).unbounded == ("audio",)


def test_encrypted_thoughts_of_parts_count() -> None:
    """What a provider keeps with a part and gets back counts; probabilities are not sent back."""
    signed = {"thought_signature": "x" * 10_000}
    assert _bound(ModelResponse([ToolCallPart("f", {}, provider_details=signed)])) > 10_000
    assert _bound(ModelResponse([TextPart("Yes", provider_details={"logprobs": ["x" * 10_000]})])) < 5_000


def test_thoughts_that_the_provider_keeps_count_as_the_output_that_they_were() -> None:
    """Thinking that is sent by its id only has at most as many tokens as its response was billed for."""
    kept = [ThinkingPart("", id="rs_1")]
    assert _bound(ModelResponse(kept, usage=RequestUsage(output_tokens=10_000))) > 10_000
    for unknown in (0, -10_000):
        bound = input_bound([ModelResponse(kept, usage=RequestUsage(output_tokens=unknown))], NONE, MODEL)
        assert bound.unbounded == ("earlier thinking that the provider keeps",)
        assert bound.tokens > 0
    signed = ModelResponse([ThinkingPart("", id="rs_1", signature="s")], usage=RequestUsage(output_tokens=10_000))
    assert _bound(signed) < 5_000


def test_tools_that_a_search_reveals_count_again() -> None:
    """A tool that is revealed in a conversation counts where it is revealed, and as one of the request's tools."""
    tools = [ToolDefinition(name=name, description="x" * 10_000, defer_loading=True) for name in ("a", "b")]
    parameters = ModelRequestParameters(function_tools=tools)
    before = _bound(parameters=parameters)
    assert _bound(ModelRequest([ToolAvailabilityDeltaPart(tools_added=["a"])]), parameters=parameters) > before + 10_000
    found = ToolReturnPart("search", {"discovered_tools": [{"name": "a"}]}, tool_call_id="1", tool_kind="tool-search")
    assert before + 10_000 < _bound(ModelRequest([found]), parameters=parameters) < before + 15_000


OBJECTS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "string", "minLength": 1}, {"type": "object", "properties": {}}]),
    lambda inner: st.dictionaries(PLAIN, inner, max_size=4).map(
        lambda fields: {"type": "object", "properties": fields}
    ),
    max_leaves=12,
)


@given(OBJECTS)
def test_a_strict_schema_is_within_the_bound(schema: dict[str, Any]) -> None:
    """What Pydantic AI adds to a schema for a strict mode is within the bound."""
    strict = OpenAIJsonSchemaTransformer(schema, strict=True).walk()
    tools = [ToolDefinition(name="f", parameters_json_schema=sent) for sent in ({}, schema)]
    empty, full = (_bound(parameters=ModelRequestParameters(function_tools=[tool])) for tool in tools)
    # The empty schema has a note's allowance too.
    assert full - empty >= len(json.dumps(strict)) - len("{}") - NOTE


async def test_a_real_request_has_a_bound() -> None:
    """A request of Pydantic AI with retries, tools and schemas has a bound, which grows with each message."""
    bounds: list[InputBound] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        bounds.append(input_bound(messages, info.model_request_parameters, MODEL))
        if len(bounds) == 1:
            return ModelResponse([ToolCallPart("find", {"number": "1042"})])
        return ModelResponse([TextPart("no JSON" if len(bounds) == 2 else '{"children": []}')])

    agent = Agent(FunctionModel(model), output_type=NativeOutput(_Node), instructions="Be brief.", retries=2)

    @agent.tool_plain
    def find(number: str) -> dict[str, str]:
        return {"found": number}

    await agent.run("Where is it?")
    assert [bound.unbounded for bound in bounds] == [(), (), ()]
    first, second, third = (bound.tokens for bound in bounds)
    assert 0 < first < second < third < 15_000
