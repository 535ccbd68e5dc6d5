"""The middleware around every request: a request id, the host and origin check, the size limit, security headers.

It is a plain ASGI middleware. Starlette's BaseHTTPMiddleware cancels the handler when the client disconnects, and a run
must not be cancelled because its caller went away.
"""

import logging
import uuid
from collections.abc import Callable, Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handrail.kernel.errors import HandrailError
from handrail.kernel.tracebacks import format_traceback

from .bind_policy import BindPolicy, strip_port
from .errors import BodyTooLarge, WrongHost
from .problems import Problem, problem_for

_logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_SPANS_BODY_BYTES = 16 * 1024 * 1024
"""As sent, before decompression: a batch of spans may be larger than an agent's input."""

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
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestGuard:
    """The middleware. Handlers find the id in `request.state.request_id`; responses carry it as `x-request-id`.

    Args:
        app: The application.
        policy: Which hosts the server answers to.
        render_problem: Makes a response of a problem, given the path of the request.
    """

    def __init__(self, app: ASGIApp, policy: BindPolicy, render_problem: Callable[[Problem, str], Response]) -> None:
        self._app = app
        self._policy = policy
        self._render_problem = render_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, path = uuid.uuid4().hex, scope["path"]
        scope.setdefault("state", {})["request_id"] = request_id
        guarded_send = _SecurityHeaders(
            send, request_id, secure=self._policy.secure, static=path.startswith("/static/")
        )
        try:
            self._check(scope)
            body = await _read_body(scope, receive)
        except HandrailError as error:
            _logger.warning("request rejected", extra={"request_id": request_id, "code": error.code})
            await self._render_problem(problem_for(error, request_id), path)(scope, receive, guarded_send)
            return
        try:
            await self._app(scope, _BufferedBody(body, receive), guarded_send)
        except Exception as error:
            extra = {"request_id": request_id, "traceback": format_traceback(error)}
            _logger.error("request failed: %s %s", scope["method"], path, extra=extra)
            if guarded_send.started:
                raise
            await self._render_problem(problem_for(error, request_id), path)(scope, receive, guarded_send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._policy.allows_host(host):
            raise WrongHost(f"this server does not answer to {host[:100]!r}; use the address that it printed at start")
        if scope["method"] in _SAFE_METHODS:
            return
        # On 127.0.0.1 there is no login to protect the API, and browsers send requests of foreign pages there, too.
        # Browsers set these two headers themselves; programs that are not browsers send neither.
        origin, fetch_site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        is_foreign = origin is not None and _origin_host(origin) != host.lower()
        if is_foreign or fetch_site in ("cross-site", "same-site"):
            raise WrongHost("the request comes from another site's page; use this server's own pages or an API key")


class _SecurityHeaders:
    """A `send` that adds the headers of every response."""

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


class _BufferedBody:
    """A `receive` over a body that was read already; whatever follows it comes from the connection."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])
        self._receive = receive

    async def __call__(self) -> Message:
        message = next(self._messages, None)
        return await self._receive() if message is None else message


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    limit = MAX_SPANS_BODY_BYTES if scope["path"] == "/v1/traces" else MAX_BODY_BYTES
    declared = Headers(scope=scope).get("content-length", "0")
    declared_size = int(declared) if declared.isdecimal() else 0
    if declared_size > limit:
        raise BodyTooLarge(f"the body has {declared_size:,} bytes; the limit is {limit:,}")
    # The declared size cannot be trusted, and a chunked body declares none: count what arrives.
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise BodyTooLarge(f"the body has more than {limit:,} bytes, the limit; send less in one request")
    return b"".join(chunks)


def _origin_host(origin: str) -> str:
    _, _, authority = origin.partition("://")
    # Sandboxed pages send the origin "null", which must match no host.
    return authority.lower() if strip_port(authority) else "null"
