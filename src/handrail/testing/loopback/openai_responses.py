"""The wire format of OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses"""

from collections.abc import Iterator
from typing import Any

from .answer import ModelResult, arguments_text, given_usage
from .events import ServerSentEvent, pieces_of
from .openai_chat import openai_tier
from .prompt import PromptSegment, ProviderRequest, compact_json, field_of, limit_of, segment_of

_FAILURE = {"code": "server_error", "message": "The model failed to generate a response."}


def responses_request(body: dict[str, Any]) -> ProviderRequest:
    """Reads the body of `POST /v1/responses`.

    Raises:
        BadPrompt: It has no model.
    """
    output_format = (body.get("text") or {}).get("format") or {}
    setup = [output_format] if output_format.get("type") == "json_schema" else []
    setup += body.get("tools") or []
    segments = [PromptSegment(compact_json(item)) for item in setup]
    if body.get("instructions"):
        segments.append(PromptSegment(body["instructions"]))
    items = body.get("input") or []
    conversation = body.get("conversation")
    conversation_id = conversation["id"] if isinstance(conversation, dict) else conversation
    return ProviderRequest(
        model=field_of(body, "model", str),
        setup=tuple(segments),
        messages=tuple(segment_of(item) for item in ([items] if isinstance(items, str) else items)),
        max_output_tokens=limit_of(body, "max_output_tokens"),
        stream=bool(body.get("stream")),
        service_tier=openai_tier(body.get("service_tier")),
        searches_web=any(str(tool.get("type", "")).startswith("web_search") for tool in body.get("tools") or []),
        previous_response=body.get("previous_response_id"),
        conversation=conversation_id,
        keep=body.get("store") is not False,
    )


def responses_body(result: ModelResult) -> dict[str, Any]:
    """The response to a request that asks for no stream."""
    finish = result.answer.finish
    status = {"length": "incomplete", "content_filter": "incomplete", "error": "failed"}.get(finish, "completed")
    body = _envelope(result, status)
    if status == "incomplete":
        reason = "max_output_tokens" if finish == "length" else "content_filter"
        body["incomplete_details"] = {"reason": reason}
    if status == "failed":
        body["error"] = _FAILURE
    body["output"] = _items(result)
    body["usage"] = given_usage(result, _usage(result))
    if result.usage.web_searches:
        body["tool_usage"] = {"web_search": {"num_requests": result.usage.web_searches}}
    return body


def responses_events(result: ModelResult) -> list[ServerSentEvent]:
    """The stream: `response.created`, each item from `added` to `done`, then the whole response."""
    final = responses_body(result)
    opening = _envelope(result, "in_progress")
    events = [
        ServerSentEvent({"type": "response.created", "response": opening}),
        ServerSentEvent({"type": "response.in_progress", "response": opening}),
    ]
    for index, item in enumerate(final["output"]):
        events += _item_events(index, item)
    events.append(ServerSentEvent({"type": f"response.{final['status']}", "response": final}))
    return [
        ServerSentEvent({**event.data, "sequence_number": number}, event.data["type"], event.is_content)
        for number, event in enumerate(events)
    ]


def responses_stream_error(message: str) -> ServerSentEvent:
    """An error in the middle of a stream."""
    error = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
    return ServerSentEvent(error, "error")


def _items(result: ModelResult) -> list[dict[str, Any]]:
    answer = result.answer
    status = "completed" if answer.finish in ("stop", "refusal") else "incomplete"
    items: list[dict[str, Any]] = []
    if answer.thinking or answer.hidden_tokens:
        summary = [{"type": "summary_text", "text": answer.thinking}] if answer.thinking else []
        items.append({"id": f"rs_{result.id}", "type": "reasoning", "summary": summary})
    search = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "loopback"}}
    items += [{"id": f"ws_{result.id}_{index}", **search} for index in range(result.usage.web_searches)]
    if answer.text or answer.finish == "refusal" or not (items or answer.tool_calls):
        text = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        content = {"type": "refusal", "refusal": answer.text} if answer.finish == "refusal" else text
        message = {"type": "message", "role": "assistant", "status": status, "content": [content]}
        items.append({"id": f"msg_{result.id}", **message})
    items += [
        {
            "id": f"fc_{result.id}_{index}",
            "type": "function_call",
            "call_id": f"call_{result.id}_{index}",
            "name": call.name,
            "arguments": arguments_text(call),
            "status": status,
        }
        for index, call in enumerate(answer.tool_calls)
    ]
    return items


def _item_events(index: int, item: dict[str, Any]) -> Iterator[ServerSentEvent]:
    place = {"output_index": index, "item_id": item["id"]}
    empty: dict[str, Any] = {"summary": []} if item["type"] == "reasoning" else {"status": "in_progress"}
    if item["type"] == "message":
        empty["content"] = []
    if item["type"] == "function_call":
        empty["arguments"] = ""
    opening = {"type": "response.output_item.added", "output_index": index, "item": {**item, **empty}}
    yield ServerSentEvent(opening, is_content=item["type"] == "function_call")
    match item["type"]:
        case "reasoning":
            yield from _summary_events(place, item["summary"])
        case "web_search_call":
            for phase in ("in_progress", "searching", "completed"):
                yield ServerSentEvent({"type": f"response.web_search_call.{phase}", **place})
        case "message":
            yield from _message_events(place, item["content"][0])
        case "function_call":
            kind = "response.function_call_arguments"
            for piece in pieces_of(item["arguments"]):
                yield ServerSentEvent({"type": f"{kind}.delta", **place, "delta": piece}, is_content=True)
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield ServerSentEvent({"type": f"{kind}.done", **place, **done})
    yield ServerSentEvent({"type": "response.output_item.done", "output_index": index, "item": item})


def _summary_events(place: dict[str, Any], summary: list[dict[str, Any]]) -> Iterator[ServerSentEvent]:
    place = {**place, "summary_index": 0}
    kind = "response.reasoning_summary_"
    for part in summary:
        yield ServerSentEvent({"type": f"{kind}part.added", **place, "part": {"type": "summary_text", "text": ""}})
        for piece in pieces_of(part["text"]):
            yield ServerSentEvent({"type": f"{kind}text.delta", **place, "delta": piece}, is_content=True)
        yield ServerSentEvent({"type": f"{kind}text.done", **place, "text": part["text"]})
        yield ServerSentEvent({"type": f"{kind}part.done", **place, "part": part})


def _message_events(place: dict[str, Any], content: dict[str, Any]) -> Iterator[ServerSentEvent]:
    place = {**place, "content_index": 0}
    kind = content["type"]
    field = "refusal" if kind == "refusal" else "text"
    logprobs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    yield ServerSentEvent({"type": "response.content_part.added", **place, "part": {**content, field: ""}})
    for piece in pieces_of(content[field]):
        yield ServerSentEvent({"type": f"response.{kind}.delta", **place, "delta": piece, **logprobs}, is_content=True)
    yield ServerSentEvent({"type": f"response.{kind}.done", **place, field: content[field], **logprobs})
    yield ServerSentEvent({"type": "response.content_part.done", **place, "part": content})


def _envelope(result: ModelResult, status: str) -> dict[str, Any]:
    conversation = result.request.conversation
    return {
        "id": f"resp_{result.id}",
        "object": "response",
        "created_at": result.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": result.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": result.request.previous_response,
        "conversation": {"id": conversation} if conversation else None,
        "service_tier": result.service_tier,
        "store": result.request.keep,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }


def _usage(result: ModelResult) -> dict[str, Any]:
    used = result.usage
    usage = {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {
            "cached_tokens": used.cache_read_tokens,
            "cache_write_tokens": used.cache_write_tokens,
        },
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.input_tokens + used.output_tokens,
    }
    return usage if result.reply.reported_cost is None else {**usage, "cost": result.reply.reported_cost}
