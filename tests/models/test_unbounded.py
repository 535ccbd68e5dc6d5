"""What makes the cost of a request impossible to bound is named, and what does not is left alone."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic_ai
import pytest
from pydantic_ai import ModelMessage, ModelRequest, ModelResponse, WebFetchTool, WebSearchTool
from pydantic_ai.messages import CompactionPart, NativeToolCallPart, NativeToolReturnPart, TextPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.native_tools import AbstractNativeTool, CodeExecutionTool
from pydantic_ai.native_tools._tool_search import ToolSearchTool
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from handrail.models.unbounded import (
    BOUNDED_SETTINGS,
    INSPECTED_SETTINGS,
    UNBOUNDED_SETTINGS,
    unbounded_parts,
)

PLAIN = ModelRequestParameters()
RESPONSES = OpenAIResponsesModel("gpt-5.4", provider=OpenAIProvider(api_key="none"))
CHAT = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(api_key="none"))
ANTHROPIC = AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(api_key="none"))
# Settings of these packages are for other requests than those of a chat model.
OTHER_REQUESTS = frozenset({"embeddings", "images", "realtime"})


def _named(settings: dict[str, Any], model: Model | None = None) -> tuple[str, ...]:
    return unbounded_parts(model or TestModel(), settings, PLAIN, [])


def _tools_named(model: Model, *tools: AbstractNativeTool, searchable: bool = False) -> tuple[str, ...]:
    function = ToolDefinition(name="f", with_native="tool_search" if searchable else None)
    return unbounded_parts(model, {}, ModelRequestParameters(native_tools=[*tools], function_tools=[function]), [])


def _history_named(*messages: ModelMessage) -> tuple[str, ...]:
    return unbounded_parts(RESPONSES, {}, PLAIN, messages)


def _declared_settings() -> Iterator[tuple[str, str]]:
    """The class and the key of every setting in Pydantic AI's source, also for providers that are not installed."""
    root = Path(pydantic_ai.__file__).parent
    for file in sorted(root.rglob("*.py")):
        source = file.read_text()
        if "ModelSettings(" in source and OTHER_REQUESTS.isdisjoint(file.relative_to(root).parts):
            for node in ast.parse(source).body:
                if isinstance(node, ast.ClassDef) and node.name.endswith("ModelSettings") and _is_typed_dict(node):
                    for statement in node.body:
                        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                            yield node.name, statement.target.id


def _is_typed_dict(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith(("ModelSettings", "TypedDict")) for base in node.bases)


def test_every_setting_of_pydantic_ai_is_decided() -> None:
    """Every setting that Pydantic AI declares is in exactly one list."""
    declared = list(_declared_settings())
    assert len(declared) > 120
    assert {"AnthropicModelSettings", "GoogleModelSettings", "XaiModelSettings"} < {name for name, _ in declared}
    lists = (BOUNDED_SETTINGS, UNBOUNDED_SETTINGS.keys(), INSPECTED_SETTINGS)
    undecided = [f"{name}.{key}" for name, key in declared if sum(key in keys for keys in lists) != 1]
    assert not undecided, (
        f"{', '.join(undecided)}: decide in handrail/models/unbounded.py whether the setting can make a request bill "
        "more than its visible input, its maximum of output and the highest price that applies. If it cannot, it "
        "belongs to BOUNDED_SETTINGS; if it can, to UNBOUNDED_SETTINGS, with the values that are harmless."
    )


def test_settings_that_cannot_raise_the_cost_are_not_named() -> None:
    """Sampling, reasoning within the maximum, tiers and caches leave a request bounded."""
    settings: dict[str, Any] = dict.fromkeys(BOUNDED_SETTINGS, "any")
    assert _named(settings) == ()


@pytest.mark.parametrize("key", [*UNBOUNDED_SETTINGS, "a_setting_of_tomorrow"])
def test_settings_that_can_raise_the_cost_are_named(key: str) -> None:
    """State, tools and other models at the provider are named, and so is a setting that nobody has looked at."""
    assert _named({key: "any"}) == (key,)
    assert _named({key: None}) == ()


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, vs in UNBOUNDED_SETTINGS.items() for value in vs])
def test_harmless_values_are_not_named(key: str, value: Any) -> None:
    """The value that a setting has anyway is not named."""
    assert _named({key: value}) == ()


def test_a_boolean_is_not_taken_for_a_number() -> None:
    """`n=True` is named although it equals 1."""
    assert _named({"n": True}) == ("n",)


def test_settings_of_the_model_count() -> None:
    """Settings of the model are named like those of the request, which override them."""
    model = TestModel(settings=ModelSettings(extra_body={"n": 8}))
    assert _named({}, model) == ("extra_body.n",)
    assert _named({"extra_body": {}}, model) == ()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"n": 8}, ("extra_body.n",)),
        ({"n": 1, "best_of": 1}, ()),
        (
            {"max_tokens": 9, "max_completion_tokens": None},
            ("extra_body.max_tokens", "extra_body.max_completion_tokens"),
        ),
        ({"temperature": 0, "seed": 1, "service_tier": "flex", "user": "u"}, ()),
        ({"reasoning": {"effort": "high"}, "chat_template_kwargs": {"enable_thinking": False}}, ()),
        ({"reasoning": None, "thinking": False}, ()),
        ({"reasoning": {"mode": "pro"}}, ("extra_body.reasoning.mode",)),
        ({"chat_template_kwargs": {"documents": ["..."]}}, ("extra_body.chat_template_kwargs.documents",)),
        ({"reasoning": "pro"}, ("extra_body.reasoning",)),
        ({"tools": [], "model": "m", 5: 6}, ("extra_body.tools", "extra_body.model", "extra_body.5")),
        ({}, ()),
        ([("n", 8)], ("extra_body",)),
    ],
    ids=str,
)
def test_fields_of_a_body(body: object, names: tuple[str, ...]) -> None:
    """Each field of `extra_body` is judged by itself; one that is not known is named, and so is one set to null."""
    assert _named({"extra_body": body}) == names


def test_fields_of_bedrock() -> None:
    """Additional fields of Bedrock are judged like those of a body."""
    fields = {"top_k": 5, "thinking": {"type": "enabled", "budget_tokens": 1024}, "inferenceConfig": {"maxTokens": 9}}
    assert _named({"bedrock_additional_model_requests_fields": fields}) == (
        "bedrock_additional_model_requests_fields.inferenceConfig",
    )


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({"traceparent": "00-1", "X-Request-ID": "r", "X-B3-TraceId": "t", "Authorization": "Bearer t"}, ()),
        ({"OpenAI-Beta": "responses=v2"}, ("extra_headers.openai-beta",)),
        ({"Anthropic-Beta": "web-fetch-2025-09-10"}, ("extra_headers.anthropic-beta",)),
        ({"anthropic-beta": "interleaved-thinking-2025-05-14, extended-cache-ttl-2025-04-11"}, ()),
        (
            {"anthropic-beta": "interleaved-thinking-2025-05-14,mcp-client-2025-04-04"},
            ("extra_headers.anthropic-beta",),
        ),
        ({"anthropic-beta": ""}, ()),
        ({"x-gateway-config": "fallbacks"}, ("extra_headers.x-gateway-config",)),
        ("traceparent: 00-1", ("extra_headers",)),
    ],
    ids=str,
)
def test_headers(headers: object, names: tuple[str, ...]) -> None:
    """Headers that identify and trace a request are harmless; beta features and unknown headers are named."""
    assert _named({"extra_headers": headers}) == names


def test_beta_features() -> None:
    """Beta features that only change how a request is processed are harmless; others are named one by one."""
    betas = ["interleaved-thinking-2025-05-14", "context-1m-2025-08-07", "compact-2026-01-12"]
    assert _named({"anthropic_betas": betas}) == (
        "anthropic_betas context-1m-2025-08-07",
        "anthropic_betas compact-2026-01-12",
    )
    assert _named({"anthropic_betas": "compact-2026-01-12"}) == ("anthropic_betas",)


def test_native_tools_are_named_if_the_provider_runs_them() -> None:
    """A provider's tool is named; one that the model lacks is not sent, so it is not named."""
    assert _tools_named(ANTHROPIC, WebSearchTool(), WebFetchTool()) == (
        "native tool web_search",
        "native tool web_fetch",
    )
    assert _tools_named(CHAT, WebSearchTool(optional=True), CodeExecutionTool(optional=True)) == ()


@pytest.mark.parametrize("model", [ANTHROPIC, RESPONSES], ids=["anthropic", "openai"])
def test_a_search_of_tools_is_named_if_the_provider_searches(model: Model) -> None:
    """A search that the provider runs is named; one of ours, or one without tools to find, is not."""
    named = ("native tool tool_search",)
    assert _tools_named(model, ToolSearchTool(optional=True), searchable=True) == named
    assert _tools_named(model, ToolSearchTool()) == named
    assert _tools_named(model, ToolSearchTool(optional=True)) == ()
    assert _tools_named(model, ToolSearchTool(strategy="custom"), searchable=True) == ()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("gpt-4o-search-preview", True),
        ("gpt-5-search-api", True),
        ("o3-deep-research", True),
        ("perplexity/sonar-pro", True),
        ("groq/compound-mini", True),
        ("grok-4.20-multi-agent", True),
        ("openai/gpt-4o:online", True),
        ("openrouter/auto", True),
        ("gemini-2.5-flash-image", True),
        ("gpt-5.4-mini", False),
        ("claude-opus-4-6", False),
        ("gemini-3-pro-preview", False),
        ("llama-3.3-70b-versatile", False),
    ],
)
def test_models_that_search_on_their_own_are_named(name: str, named: bool) -> None:
    """A model that searches, calls tools or picks another model without being asked is named."""
    assert _named({}, TestModel(model_name=name)) == ((f"model {name}",) if named else ())


def test_output_without_a_maximum_is_named() -> None:
    """A model that is not sent the maximum of output tokens is named."""
    unlimited = OpenAIModelProfile(openai_unsupported_model_settings=("max_tokens",))
    model = OpenAIResponsesModel("gpt-5.4", provider=OpenAIProvider(api_key="none"), profile=unlimited)
    assert _named({"max_tokens": 9}, model) == ("output without a maximum",)
    assert _named({"max_tokens": 9}, RESPONSES) == ()


def test_images_as_output_are_named() -> None:
    """A request for an image is named, since images are not billed as tokens of text."""
    assert unbounded_parts(TestModel(), {}, ModelRequestParameters(allow_image_output=True), []) == ("image output",)


def test_state_that_messages_only_refer_to_is_named() -> None:
    """Messages whose content is with the provider are named; those that contain everything are not."""
    call = NativeToolCallPart("file_search", {}, provider_name="openai")
    result = NativeToolReturnPart("file_search", None, tool_call_id="1", provider_name="openai")
    assert _history_named(ModelResponse([call, result])) == ("earlier results of native tool file_search",)
    complete = NativeToolReturnPart("web_search", ["..."], tool_call_id="1", provider_name="anthropic")
    assert _history_named(ModelResponse([complete, TextPart("Yes")])) == ()
    assert _history_named(ModelResponse([CompactionPart(None, id="cmp_1")])) == (
        "a conversation that the provider compacted",
    )
    assert _history_named(ModelResponse([CompactionPart(None, provider_details={"encrypted_content": "..."})])) == ()
    assert _history_named(ModelRequest([]), ModelResponse([], state="suspended")) == (
        "a response that the provider suspended",
    )


def test_names_are_not_repeated() -> None:
    """Each name is there once, however often it applies."""
    call = NativeToolCallPart("file_search", {}, provider_name="openai")
    settings = {"extra_headers": {"anthropic-beta": "a-2025-01-01,b-2025-01-01"}}
    assert unbounded_parts(RESPONSES, settings, PLAIN, [ModelResponse([call, call])]) == (
        "extra_headers.anthropic-beta",
        "earlier results of native tool file_search",
    )


def test_beta_switches_of_a_client() -> None:
    """A client that sends a beta switch with every request is named; its other headers are its own affair."""
    openai = pytest.importorskip("openai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def names(**headers: str) -> tuple[str, ...]:
        client = openai.AsyncOpenAI(api_key="test", default_headers=headers)
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))
        return unbounded_parts(model, {}, ModelRequestParameters(), [])

    assert names(**{"openai-beta": "responses=v2", "x-team": "a"}) == ("default_headers.openai-beta",)
    assert names(**{"x-team": "a"}) == ()
