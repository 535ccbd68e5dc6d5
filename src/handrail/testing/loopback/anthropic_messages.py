"""The wire format of Anthropic's Messages: https://platform.claude.com/docs/en/api/messages"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .answer import ModelResult, arguments_text, given_usage
from .events import ServerSentEvent, pieces_of
from .prompt import CacheLifetime, PromptSegment, ProviderRequest, compact_json, field_of, limit_of, segment_of

_SIGNATURE = "bG9vcGJhY2s="
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "refusal": "refusal"}
# How the blocks begin whose content follows piece by piece.
_EMPTY: dict[str, dict[str, Any]] = {
    "thinking": {"thinking": "", "signature": ""},
    "text": {"text": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_request(body: dict[str, Any]) -> ProviderRequest:
    """Reads the body of `POST /v1/messages`.

    Raises:
        BadPrompt: It has no model, no messages or no limit.
    """
    field_of(body, "max_tokens", int)
    return prompt_request(body)


def prompt_request(body: dict[str, Any]) -> ProviderRequest:
    """Reads the body of `POST /v1/messages/count_tokens`, which has no limit.

    Raises:
        BadPrompt: It has no model or no messages.
    """
    tools = body.get("tools") or []
    output_format = (body.get("output_config") or {}).get("format") or body.get("output_format")
    setup = [PromptSegment(compact_json(output_format))] if output_format else []
    setup += [PromptSegment(compact_json(_without_mark(tool)), cached_for=_lifetime(tool)) for tool in tools]
    setup += _segments(body.get("system") or [])
    messages = [
        segment for message in field_of(body, "messages", list) for segment in _segments(message.get("content") or [])
    ]
    if messages and (lifetime := _lifetime(body)):
        messages[-1] = replace(messages[-1], cached_for=lifetime)
    return ProviderRequest(
        model=field_of(body, "model", str),
        setup=tuple(setup),
        messages=tuple(messages),
        max_output_tokens=limit_of(body, "max_tokens"),
        stream=bool(body.get("stream")),
        service_tier="standard",
        speed="fast" if body.get("speed") == "fast" else "standard",
        searches_web=any(str(tool.get("type", "")).startswith("web_search") for tool in tools),
    )


def _segments(content: str | list[dict[str, Any]]) -> list[PromptSegment]:
    if isinstance(content, str):
        return [PromptSegment(content)]
    return [segment_of(block, _lifetime(block)) for block in content]


def _lifetime(block: dict[str, Any]) -> CacheLifetime | None:
    mark = block.get("cache_control")
    return None if mark is None else "1h" if mark.get("ttl") == "1h" else "5m"


def _without_mark(tool: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key != "cache_control"}


def anthropic_error(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """An error as Anthropic words it."""
    kind = code if code in _ERRORS.values() else _ERRORS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_loopback"}


def anthropic_body(result: ModelResult) -> dict[str, Any]:
    """The response to a request that asks for no stream."""
    blocks = [_with_parsed_input(block, result.answer.finish) for block in _blocks(result)]
    body = {**_envelope(result), "content": blocks, **_stop(result)}
    usage = given_usage(result, _usage(result))
    return body if usage is None else {**body, "usage": usage}


def anthropic_events(result: ModelResult) -> list[ServerSentEvent]:
    """The stream: `message_start` with the input's tokens, each block, then `message_delta` with all tokens."""
    used = result.usage
    start = {**_envelope(result), "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    begun = {**_usage(result), "input_tokens": used.uncached_tokens - used.search_tokens, "output_tokens": 1}
    begun = {name: value for name, value in begun.items() if name not in ("server_tool_use", "output_tokens_details")}
    first, last = given_usage(result, begun), given_usage(result, _final_usage(result))
    events = [
        _event("message_start", {"message": start if first is None else {**start, "usage": first}}),
        _event("ping", {}),
    ]
    for index, block in enumerate(_blocks(result)):
        events += _block_events(index, block)
    ending = {"delta": _stop(result)} if last is None else {"delta": _stop(result), "usage": last}
    return [*events, _event("message_delta", ending), _event("message_stop", {})]


def anthropic_stream_error(message: str) -> ServerSentEvent:
    """An error in the middle of a stream."""
    return ServerSentEvent(anthropic_error(500, message), "error")


def _blocks(result: ModelResult) -> list[dict[str, Any]]:
    """The content, with the arguments of calls as text."""
    answer = result.answer
    blocks: list[dict[str, Any]] = []
    if answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": _SIGNATURE})
    elif answer.hidden_tokens:
        blocks.append({"type": "redacted_thinking", "data": _SIGNATURE})
    for index in range(result.usage.web_searches):
        search = f"srvtoolu_{result.id}_{index}"
        blocks.append({"type": "server_tool_use", "id": search, "name": "web_search", "input": '{"query":"loopback"}'})
        blocks.append({"type": "web_search_tool_result", "tool_use_id": search, "content": []})
    if answer.text and answer.finish != "refusal":
        blocks.append({"type": "text", "text": answer.text, "citations": None})
    for index, call in enumerate(answer.tool_calls):
        call_id = f"toolu_{result.id}_{index}"
        blocks.append({"type": "tool_use", "id": call_id, "name": call.name, "input": arguments_text(call)})
    return blocks


def _with_parsed_input(block: dict[str, Any], finish: str) -> dict[str, Any]:
    """A block with its arguments as a JSON value: empty if the limit cut them, and the text itself if it is broken."""
    if "input" not in block:
        return block
    try:
        arguments = json.loads(block["input"])
    except ValueError:
        arguments = {} if finish == "length" else block["input"]
    return {**block, "input": arguments}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[ServerSentEvent]:
    def delta(value: dict[str, Any], *, is_content: bool = True) -> ServerSentEvent:
        return _event("content_block_delta", {"index": index, "delta": value}, is_content=is_content)

    kind = block["type"]
    start = {"index": index, "content_block": {**block, **_EMPTY.get(kind, {})}}
    yield _event("content_block_start", start, is_content=kind == "tool_use")
    match kind:
        case "thinking":
            for piece in pieces_of(block["thinking"]):
                yield delta({"type": "thinking_delta", "thinking": piece})
            yield delta({"type": "signature_delta", "signature": block["signature"]}, is_content=False)
        case "text":
            for piece in pieces_of(block["text"]):
                yield delta({"type": "text_delta", "text": piece})
        case "tool_use" | "server_tool_use":
            yield delta({"type": "input_json_delta", "partial_json": ""}, is_content=False)
            for piece in pieces_of(block["input"]):
                yield delta({"type": "input_json_delta", "partial_json": piece}, is_content=kind == "tool_use")
    yield _event("content_block_stop", {"index": index})


def _event(kind: str, data: dict[str, Any], *, is_content: bool = False) -> ServerSentEvent:
    return ServerSentEvent({"type": kind, **data}, kind, is_content)


def _envelope(result: ModelResult) -> dict[str, Any]:
    return {"id": f"msg_{result.id}", "type": "message", "role": "assistant", "model": result.model}


def _stop(result: ModelResult) -> dict[str, Any]:
    reason = _STOP_REASONS.get(result.answer.finish, "end_turn")
    details = None
    if reason == "refusal":
        explanation = result.answer.text if result.answer.finish == "refusal" else None
        details = {"type": "refusal", "category": None, "explanation": explanation}
    elif reason == "end_turn" and result.answer.tool_calls:
        reason = "tool_use"
    return {"stop_reason": reason, "stop_sequence": None, "stop_details": details}


def _usage(result: ModelResult) -> dict[str, Any]:
    used = result.usage
    usage: dict[str, Any] = {
        "input_tokens": used.uncached_tokens,
        "cache_creation_input_tokens": used.cache_write_tokens,
        "cache_read_input_tokens": used.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": used.cache_write_1h_tokens,
        },
        "output_tokens": used.output_tokens,
        "service_tier": result.service_tier,
    }
    if used.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": used.reasoning_tokens}
    if used.web_searches:
        usage["server_tool_use"] = {"web_search_requests": used.web_searches, "web_fetch_requests": 0}
    if result.request.speed == "fast":
        usage["speed"] = "fast"
    return usage


def _final_usage(result: ModelResult) -> dict[str, Any]:
    """The cumulative usage at the end of a stream, which repeats neither the cache's details nor the tier."""
    return {
        name: value for name, value in _usage(result).items() if name not in ("cache_creation", "service_tier", "speed")
    }
