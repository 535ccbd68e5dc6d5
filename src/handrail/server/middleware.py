"""Around every request: its id, whom it is meant for, how large it may be; around every answer: the security headers.

A plain ASGI middleware, since an agent's run is not to be cancelled with the connection of who asked for it.
"""

import logging
import uuid
from collections.abc import Callable, Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handrail.kernel.errors import HandrailError

from .bind_policy import Door, host_name
from .errors import TooLarge, WrongHost
from .problems import Problem, problem_of

log = logging.getLogger("handrail.web")

MAX_BODY = 2 * 1024 * 1024
MAX_SPANS_BODY = 16 * 1024 * 1024
"""Bytes, as sent: a batch of spans may be larger than a question."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Envelope:
    """The middleware; `state["request_id"]` is what the answer's `x-request-id` says.

    `show` makes an answer of a problem, for the path that was asked for.
    """

    def __init__(self, app: ASGIApp, door: Door, show: Callable[[Problem, str], Response]) -> None:
        self._app = app
        self._door = door
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        sealed = _Sealed(send, request_id, secure=self._door.secure, static=scope["path"].startswith("/static/"))
        try:
            self._check(scope)
            body = await _body(scope, receive)
        except HandrailError as error:
            await self._show(problem_of(error, request_id), scope["path"])(scope, receive, sealed)
            return
        try:
            await self._app(scope, _Replayed(body, receive), sealed)
        except Exception as error:
            log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if sealed.started:
                raise
            await self._show(problem_of(error, request_id), scope["path"])(scope, receive, sealed)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._door.answers(host):
            raise WrongHost(f"this server does not answer as {host[:100]!r}; use the address that it printed")
        if scope["method"] in _SAFE:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        elsewhere = origin is not None and _of_origin(origin) != host.lower()
        if elsewhere or site in ("cross-site", "same-site"):
            raise WrongHost("the request was sent by a page of another site; use this server's own pages, or a key")


class _Sealed:
    """`send`, with the headers that every answer has."""

    def __init__(self, send: Send, request_id: str, *, secure: bool, static: bool) -> None:
        self._send = send
        self._headers = {**_HEADERS, "x-request-id": request_id}
        self._headers["cache-control"] = "public, max-age=31536000, immutable" if static else "no-store"
        if secure:
            self._headers["strict-transport-security"] = "max-age=31536000"
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers[name] = value
        await self._send(message)


class _Replayed:
    """`receive`, over a body that was read already; what comes after it is the client's going away."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])
        self._receive = receive

    async def __call__(self) -> Message:
        message = next(self._messages, None)
        return await self._receive() if message is None else message


async def _body(scope: Scope, receive: Receive) -> bytes:
    limit = MAX_SPANS_BODY if scope["path"] == "/v1/traces" else MAX_BODY
    declared = Headers(scope=scope).get("content-length", "0")
    parts, size, more = list[bytes](), int(declared) if declared.isdecimal() else 0, True
    if size > limit:
        raise TooLarge(f"{size:,} bytes; at most {limit:,} are taken at once")
    size = 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise TooLarge(f"more than {limit:,} bytes; send less at once")
    return b"".join(parts)


def _of_origin(origin: str) -> str:
    _, _, location = origin.partition("://")
    # "null" is what a sandboxed page sends: it is nobody's.
    return location.lower() if host_name(location) else "null"
