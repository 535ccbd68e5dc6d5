"""What makes the cost of a model request impossible to bound before it is sent.

A hold covers the input that Handrail can see, the output up to the maximum it sends, and the highest price that can
apply. This module names what can bill more than that: several answers, tools and memory at the provider, another model.
It works by lists of what is known to be harmless, so a setting that nobody has looked at is named too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_ai.messages import CompactionPart, ModelMessage, ModelResponse, NativeToolCallPart, NativeToolReturnPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.native_tools import AbstractNativeTool

BOUNDED_SETTINGS = frozenset(
    {
        # The maximum that is sent is what is held, and reasoning counts towards it.
        "max_tokens",
        "thinking",
        "anthropic_effort",
        "anthropic_task_budget",
        "anthropic_thinking",
        "cerebras_clear_thinking",
        "cerebras_disable_reasoning",
        "google_thinking_config",
        "groq_reasoning_effort",
        "groq_reasoning_format",
        "openai_reasoning_context",
        "openai_reasoning_effort",
        "openai_reasoning_summary",
        "openai_text_verbosity",
        "openrouter_reasoning",
        "snowflake_reasoning",
        "xai_reasoning_effort",
        "zai_clear_thinking",
        # How tokens are chosen.
        "decision_boolean_threshold",
        "decision_route_threshold",
        "frequency_penalty",
        "google_safety_settings",
        "logit_bias",
        "parallel_tool_calls",
        "presence_penalty",
        "seed",
        "stop_sequences",
        "temperature",
        "tool_choice",
        "top_k",
        "top_p",
        "typesafe_boolean_threshold",
        "typesafe_tool_call_threshold",
        # How the request is sent. A governed request has no retries in the provider's client.
        "anthropic_eager_input_streaming",
        "first_event_timeout",
        "framing_announcement",
        "max_retries",
        "request_timeout",
        "timeout",
        # Service tiers are part of the price of a hold, as are writes to a cache.
        "anthropic_cache",
        "anthropic_cache_diagnostics",
        "anthropic_cache_instructions",
        "anthropic_cache_messages",
        "anthropic_cache_tool_definitions",
        "anthropic_service_tier",
        "anthropic_speed",
        "bedrock_cache_instructions",
        "bedrock_cache_messages",
        "bedrock_cache_tool_definitions",
        "bedrock_service_tier",
        "cache",
        "google_cloud_service_tier",
        "mistral_prompt_cache_key",
        "openai_cache_instructions",
        "openai_prompt_cache_diagnostics",
        "openai_prompt_cache_key",
        "openai_prompt_cache_options",
        "openai_prompt_cache_retention",
        "openai_service_tier",
        "openrouter_cache_instructions",
        "openrouter_cache_messages",
        "openrouter_cache_tool_definitions",
        "service_tier",
        # What the response reports besides its tokens.
        "bedrock_additional_model_response_fields_paths",
        "citations",
        "google_logprobs",
        "google_top_logprobs",
        "openai_continuous_usage_stats",
        "openai_include_code_execution_outputs",
        "openai_include_file_search_results",
        "openai_include_raw_annotations",
        "openai_include_unmapped_response_data",
        "openai_include_web_search_sources",
        "openai_logprobs",
        "openai_moderation",
        "openai_top_logprobs",
        "openrouter_usage",
        "xai_include_attachment_search_output",
        "xai_include_code_execution_output",
        "xai_include_collections_search_output",
        "xai_include_encrypted_content",
        "xai_include_inline_citations",
        "xai_include_mcp_output",
        "xai_include_web_search_output",
        "xai_include_x_search_output",
        "xai_logprobs",
        "xai_top_logprobs",
        # Labels, and what the provider stores without charging for it.
        "anthropic_metadata",
        "bedrock_request_metadata",
        "google_labels",
        "openai_send_reasoning_ids",
        "openai_store",
        "openai_user",
        "xai_store_messages",
        "xai_user",
        # These only shorten the input: the tokens of an image are bounded at the highest resolution.
        "google_video_resolution",
        "openai_truncation",
        "openrouter_transforms",
        # These change provider-side tools, each of which is named itself.
        "anthropic_code_execution_tool_version",
        "anthropic_web_tools_allowed_callers",
        "xai_max_turns",
    }
)
"""Settings that cannot raise what a request bills beyond its hold."""

UNBOUNDED_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    # Input that the provider adds: earlier messages, cached contents, prompt templates, skills.
    "anthropic_container": (False,),
    "bedrock_prompt_variables": ({},),
    "google_cached_content": (),
    "openai_conversation_id": (),
    "openai_previous_response_id": (),
    "openai_transport": ("http",),  # On a WebSocket, the provider keeps the conversation.
    "openrouter_preset": (),
    "xai_previous_response_id": (),
    # Tools, summaries and additional agents at the provider.
    "anthropic_context_management": ({},),
    "openai_context_management": ([], ()),
    "openai_native_tools": ([], ()),
    "openai_reasoning_mode": ("standard",),
    "xai_agent_count": (1,),
    # A rejected prediction is billed as output on top of the answer.
    "openai_prediction": (),
    # The usage arrives in a later request.
    "openai_background": (False,),
    # Another model, another provider, or a service with a price of its own.
    "bedrock_guardrail_config": ({},),
    "bedrock_inference_profile": (),
    "bedrock_performance_configuration": ({}, {"latency": "standard"}),
    "google_model_armor_config": ({},),
    "mcp_model_preferences": (),
    "openrouter_models": ([], ()),
    "openrouter_provider": ({},),
    # Not a setting of Pydantic AI, but common enough.
    "n": (1,),
}
"""Settings that can raise it, with the values that do not."""

INSPECTED_SETTINGS = frozenset(
    {"extra_body", "extra_headers", "anthropic_betas", "bedrock_additional_model_requests_fields"}
)
"""Settings whose entries are looked at one by one."""

_BOUNDED_FIELDS = frozenset(
    {
        "cache_control",
        "clear_thinking",
        "disable_reasoning",
        "enable_thinking",
        "frequency_penalty",
        "include_reasoning",
        "logit_bias",
        "logprobs",
        "metadata",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "random_seed",
        "reasoning_effort",
        "reasoning_format",
        "repetition_penalty",
        "safety_identifier",
        "seed",
        "service_tier",
        "session_id",
        "speed",
        "stop",
        "stop_sequences",
        "store",
        "stream_options",
        "temperature",
        "top_a",
        "top_k",
        "top_logprobs",
        "top_p",
        "transforms",
        "truncation",
        "typical_p",
        "usage",
        "user",
        "verbosity",
    }
)
# Objects in a body, with their harmless keys. OpenAI's `reasoning` can ask for a mode with more work than is reported.
_BOUNDED_OBJECTS: Mapping[str, frozenset[str]] = {
    "chat_template_kwargs": frozenset({"enable_thinking", "thinking", "reasoning_effort", "clear_thinking"}),
    "reasoning": frozenset({"effort", "enabled", "exclude", "generate_summary", "max_tokens", "summary"}),
    "reasoning_config": frozenset({"type", "budget_tokens"}),
    "thinking": frozenset({"type", "budget_tokens", "clear_thinking", "display"}),
}
_SINGLE_ANSWER = frozenset({"n", "best_of", "candidate_count", "num_return_sequences"})

_BOUNDED_HEADERS = frozenset(
    {
        "accept",
        "anthropic-version",
        "api-key",
        "authorization",
        "b3",
        "baggage",
        "content-type",
        "correlation-id",
        "http-referer",
        "idempotency-key",
        "openai-organization",
        "openai-project",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-amzn-trace-id",
        "x-api-key",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-request-id",
        "x-title",
        "x-trace-id",
    }
)
_BOUNDED_HEADER_PREFIXES = (
    "helicone-property-",
    "helicone-session-",
    "helicone-user-",
    "x-b3-",
    "x-datadog-",
    "x-stainless-",
)
# Anthropic's beta names end with a date. `context-1m` is not among these: a model's context window bounds its input.
_BOUNDED_BETAS = re.compile(
    r"(cache-diagnosis|effort|extended-cache-ttl|fine-grained-tool-streaming|interleaved-thinking|"
    r"max-tokens-3-5-sonnet|output-128k|pdfs|prompt-caching|structured-outputs|task-budgets|token-counting|"
    r"token-efficient-tools)-\d{4}-\d{2}-\d{2}"
)
# Models that search, call tools or choose another model on their own, and models that draw.
_UNBOUNDED_MODELS = re.compile(
    r"search-preview|search-api|deep-research|\bsonar\b|pro-search|\bcompound\b|multi-agent|:online\b|@preset/|"
    r"openrouter/(auto|fusion)|-image\b"
)
# Their responses refer to results of provider-side tools by id, so these are not in the messages.
_REFERRING_PROVIDERS = frozenset({"openai", "azure", "xai"})


def unbounded_parts(
    model: Model,
    settings: Mapping[str, Any],
    parameters: ModelRequestParameters,
    messages: Sequence[ModelMessage],
) -> tuple[str, ...]:
    """The names of what makes the cost of this request impossible to bound, whatever its input is.

    Args:
        model: The model of the request, not one that wraps others.
        settings: The request's settings; those of the model are added.
        parameters: The request's tools and output.
        messages: All messages of the request.

    Returns:
        Names that tell what to remove, such as `openai_prediction`, `extra_body.n`, `extra_headers.anthropic-beta` or
        `native tool web_search`; each once, and none if the cost has a bound.
    """
    merged = {**(model.settings or {}), **settings}
    names = [
        *_model_names(model, parameters),
        *(name for key, value in merged.items() for name in _setting_names(key, value)),
        *(f"native tool {tool.kind}" for tool in parameters.native_tools if _is_run(tool, model, parameters)),
        *_client_names(model),
        *_message_names(messages),
    ]
    return tuple(dict.fromkeys(names))


def _model_names(model: Model, parameters: ModelRequestParameters) -> Iterator[str]:
    if _UNBOUNDED_MODELS.search(model.model_name.lower()):
        yield f"model {model.model_name}"
    # Pydantic AI does not send the maximum to these, such as those of a ChatGPT subscription.
    profile: Mapping[str, Any] = model.profile
    if "max_tokens" in {*model.unsupported_settings, *profile.get("openai_unsupported_model_settings", ())}:
        yield "output without a maximum"
    if parameters.allow_image_output:
        yield "image output"


def _setting_names(key: str, value: object) -> Iterator[str]:
    if value is None or key in BOUNDED_SETTINGS:
        return
    if key == "extra_headers":
        yield from _header_names(value)
    elif key == "anthropic_betas":
        yield from _beta_names(value)
    elif key in INSPECTED_SETTINGS:
        yield from _field_names(key, value)
    elif not any(_same(value, harmless) for harmless in UNBOUNDED_SETTINGS.get(key, ())):
        yield key


def _field_names(setting: str, fields: object) -> Iterator[str]:
    """The fields of a body. One that is None counts, since it removes what the request sets, such as its maximum."""
    if not isinstance(fields, Mapping):
        yield setting
        return
    for key, value in fields.items():
        if key == "anthropic_beta":
            yield from (f"{setting}.{key}" for _ in _beta_names(value))
        elif key in _BOUNDED_OBJECTS and (value is None or isinstance(value, Mapping | bool)):
            inner_keys = value if isinstance(value, Mapping) else ()
            yield from (f"{setting}.{key}.{inner}" for inner in inner_keys if inner not in _BOUNDED_OBJECTS[key])
        elif key not in _BOUNDED_FIELDS and not (key in _SINGLE_ANSWER and _same(value, 1)):
            yield f"{setting}.{key}"


def _header_names(headers: object) -> Iterator[str]:
    if not isinstance(headers, Mapping):
        yield "extra_headers"
        return
    for header, value in headers.items():
        name = str(header).lower()
        if name == "anthropic-beta":
            yield from (f"extra_headers.{name}" for _ in _beta_names(list(filter(None, str(value).split(",")))))
        elif name not in _BOUNDED_HEADERS and not name.startswith(_BOUNDED_HEADER_PREFIXES):
            yield f"extra_headers.{name}"


def _client_names(model: Model) -> Iterator[str]:
    """The beta switches among the headers that the clients of OpenAI and Anthropic send with every request."""
    headers: Mapping[str, Any] = getattr(getattr(model, "client", None), "_custom_headers", None) or {}
    betas = {name: value for name, value in headers.items() if name.lower().endswith("-beta")}
    yield from (name.replace("extra_headers", "default_headers") for name in _header_names(betas))


def _beta_names(betas: object) -> Iterator[str]:
    if isinstance(betas, str) or not isinstance(betas, Sequence):
        yield "anthropic_betas"
        return
    yield from (f"anthropic_betas {beta}" for beta in betas if not _BOUNDED_BETAS.fullmatch(str(beta).strip()))


def _is_run(tool: AbstractNativeTool, model: Model, parameters: ModelRequestParameters) -> bool:
    """Whether the provider runs the tool: Pydantic AI drops one that the model lacks, for a function of the agent's."""
    supported = model.profile.get("supported_native_tools")
    if supported is not None and not isinstance(tool, tuple(supported)):
        return False
    if tool.kind != "tool_search":
        return True
    # Pydantic AI adds a search of its own accord, and sends it only if there are tools to search.
    searched = not tool.optional or any(function.with_native for function in parameters.function_tools)
    return searched and getattr(tool, "strategy", None) != "custom"


def _message_names(messages: Sequence[ModelMessage]) -> Iterator[str]:
    """State that a provider keeps and that messages only refer to."""
    if messages and isinstance(messages[-1], ModelResponse) and messages[-1].state == "suspended":
        yield "a response that the provider suspended"
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, NativeToolCallPart | NativeToolReturnPart):
            if part.provider_name in _REFERRING_PROVIDERS and part.tool_kind != "tool-search":
                yield f"earlier results of native tool {part.tool_name}"
        elif isinstance(part, CompactionPart) and not (part.content or part.provider_details):
            yield "a conversation that the provider compacted"


def _same(value: object, harmless: object) -> bool:
    # True equals 1 and False equals 0, but are not the same setting.
    return type(value) is type(harmless) and value == harmless
