"""What the server sends for a request, decided before anything is sent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .answer import ModelResult
from .events import ServerSentEvent, events_until
from .replies import Disconnect, EndsWithoutFinish, Hang, HtmlPage, HttpError, RawBody, StreamError
from .wire import WireFormat

_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class PlannedResponse:
    """A response: a body or a stream of events, and how it ends."""

    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    events: tuple[ServerSentEvent, ...] | None = None
    """Set if the response is a stream."""
    ending: Literal["whole", "cut", "never"] = "whole"
    """`cut`: the connection is closed after the events, or without a response; `never`: nothing is sent."""
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> PlannedResponse:
    """A response with a JSON body."""
    return PlannedResponse(status=status, headers=headers or {}, body=json.dumps(content).encode())


def planned_response(wire: WireFormat, result: ModelResult) -> PlannedResponse:
    """The response to a request that the provider worked on, with the reply's fault."""
    delay_s, chunk_delay_s = result.reply.delay_s, result.reply.chunk_delay_s
    fault = result.reply.fault
    match fault:
        case Hang():
            return PlannedResponse(ending="never", delay_s=delay_s)
        case HttpError():
            body = wire.error(fault.status, f"Loopback error {fault.status}") if fault.body is None else fault.body
            return _delayed(json_response(body, fault.status, fault.headers), delay_s)
        case HtmlPage():
            return PlannedResponse(
                status=fault.status, content_type="text/html; charset=utf-8", body=_HTML, delay_s=delay_s
            )
        case RawBody():
            raw = fault.content if isinstance(fault.content, bytes) else json.dumps(fault.content).encode()
            return PlannedResponse(status=fault.status, content_type=fault.content_type, body=raw, delay_s=delay_s)
        case Disconnect() if not result.request.stream:
            return PlannedResponse(ending="cut", delay_s=delay_s)
        case StreamError() if not result.request.stream:
            return _delayed(json_response(wire.error(500, fault.message), 500), delay_s)
    if not result.request.stream:
        return _delayed(json_response(wire.body(result)), delay_s)
    events = wire.events(result)
    if isinstance(fault, Disconnect | EndsWithoutFinish | StreamError):
        events = events_until(events, fault.after_chunks)
    if isinstance(fault, StreamError):
        events.append(wire.stream_error(fault.message))
    return PlannedResponse(
        content_type="text/event-stream; charset=utf-8",
        events=tuple(events),
        ending="cut" if isinstance(fault, Disconnect) else "whole",
        delay_s=delay_s,
        chunk_delay_s=chunk_delay_s,
    )


def _delayed(response: PlannedResponse, delay_s: float) -> PlannedResponse:
    return replace(response, delay_s=delay_s)
