"""The wire format of OpenAI's Chat Completions, which OpenRouter and many others speak as well.

https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Iterator
from typing import Any

from .answer import ModelResult, arguments_text, given_usage
from .events import ServerSentEvent, pieces_of
from .prompt import PromptSegment, ProviderRequest, compact_json, field_of, limit_of, segment_of


def chat_request(body: dict[str, Any]) -> ProviderRequest:
    """Reads the body of `POST /v1/chat/completions`.

    Raises:
        BadPrompt: It has no model or no messages.
    """
    schema = (body.get("response_format") or {}).get("json_schema")
    setup = [schema] if schema else []
    setup += body.get("tools") or []
    model = field_of(body, "model", str)
    plugins = body.get("plugins") or []
    searches = "web_search_options" in body or "-search-" in model or model.endswith(":online")
    searches = searches or any(plugin.get("id") == "web" for plugin in plugins)
    return ProviderRequest(
        model=model,
        setup=tuple(PromptSegment(compact_json(item)) for item in setup),
        messages=tuple(segment_of(message) for message in field_of(body, "messages", list)),
        max_output_tokens=limit_of(body, "max_tokens", "max_completion_tokens"),
        choices=body.get("n") or 1,
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        service_tier=openai_tier(body.get("service_tier")),
        searches_web=searches,
    )


def openai_tier(asked: str | None) -> str:
    """The tier that OpenAI reports for the one that was asked for; it calls the fast one `priority`."""
    return {None: "default", "auto": "default", "fast": "priority"}.get(asked, asked or "default")


def openai_error(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def chat_body(result: ModelResult) -> dict[str, Any]:
    """The response to a request that asks for no stream."""
    message: dict[str, Any] = {"role": "assistant", "content": result.answer.text or None, "refusal": None}
    if result.answer.finish == "refusal":
        message |= {"content": None, "refusal": result.answer.text}
    if result.answer.thinking:
        message["reasoning_content"] = result.answer.thinking
    if result.answer.tool_calls:
        message["tool_calls"] = [_tool_call(result, index) for index in range(len(result.answer.tool_calls))]
    choice = {"message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
    body = _envelope(result, "chat.completion", [{"index": n, **choice} for n in range(result.request.choices)])
    usage = given_usage(result, _usage(result))
    return body if usage is None else {**body, "usage": usage}


def chat_events(result: ModelResult) -> list[ServerSentEvent]:
    """The stream: the role, pieces of the content, the finish reason, then the usage if it was asked for."""
    choices = range(result.request.choices)
    opening = {"role": "assistant", "content": "", "refusal": None}
    events = [_chunk(result, index, opening) for index in choices]
    events += [_chunk(result, index, delta, is_content=True) for index in choices for delta in _deltas(result)]
    events += [_chunk(result, index, {}, _finish_reason(result)) for index in choices]
    usage = given_usage(result, _usage(result))
    if result.request.include_usage and usage is not None:
        events.append(ServerSentEvent({**_envelope(result, "chat.completion.chunk", []), "usage": usage}))
    return [*events, ServerSentEvent("[DONE]")]


def chat_stream_error(message: str) -> ServerSentEvent:
    """An error in the middle of a stream."""
    return ServerSentEvent(openai_error(500, message))


def _deltas(result: ModelResult) -> Iterator[dict[str, Any]]:
    for piece in pieces_of(result.answer.thinking):
        yield {"reasoning_content": piece}
    for piece in pieces_of(result.answer.text):
        yield {"refusal" if result.answer.finish == "refusal" else "content": piece}
    for index, call in enumerate(result.answer.tool_calls):
        opening = _tool_call(result, index)
        yield {"tool_calls": [{"index": index, **opening, "function": {"name": call.name, "arguments": ""}}]}
        for piece in pieces_of(arguments_text(call)):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _tool_call(result: ModelResult, index: int) -> dict[str, Any]:
    call = result.answer.tool_calls[index]
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": f"call_{result.id}_{index}", "type": "function", "function": function}


def _chunk(
    result: ModelResult,
    index: int,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    *,
    is_content: bool = False,
) -> ServerSentEvent:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = _envelope(result, "chat.completion.chunk", [choice])
    if result.request.include_usage:
        chunk["usage"] = None
    return ServerSentEvent(chunk, is_content=is_content)


def _envelope(result: ModelResult, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    # OpenRouter names the provider behind it.
    routed = {"provider": "Loopback"} if result.provider_id == "openrouter" else {}
    return {
        **routed,
        "id": f"chatcmpl-{result.id}",
        "object": kind,
        "created": result.created,
        "model": result.model,
        "service_tier": result.service_tier,
        "system_fingerprint": "fp_loopback",
        "choices": choices,
    }


def _finish_reason(result: ModelResult) -> str:
    """OpenAI ends a refusal with `stop`; `error` is OpenRouter's."""
    finish = "stop" if result.answer.finish == "refusal" else result.answer.finish
    return "tool_calls" if finish == "stop" and result.answer.tool_calls else finish


def _usage(result: ModelResult) -> dict[str, Any]:
    used = result.usage
    usage = {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": used.cache_read_tokens,
            "cache_write_tokens": used.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    return usage if result.reply.reported_cost is None else {**usage, "cost": result.reply.reported_cost}
