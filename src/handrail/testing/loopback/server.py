"""The HTTP server: HTTP/1.1 with chunked streams, and one connection and thread for each request.

A connection is closed after its response, so that no client has to be closed by a test to leave no open sockets.
"""

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

from .response import PlannedResponse

_POLL_S = 0.005
_CLOSING_S = 5.0


@dataclass(frozen=True)
class HttpRequest:
    """A request as it arrived."""

    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    body: bytes


class HttpExchange(Protocol):
    """A request that is being answered."""

    @property
    def response(self) -> PlannedResponse:
        """What to send."""

    def chunk_generated(self, chunks: int) -> None:
        """Called before the first event of a stream and before each chunk, with the chunks generated so far."""


class LoopbackServer(ThreadingTCPServer):
    """A server on an ephemeral port of 127.0.0.1.

    Args:
        answer: Decides the response to a request; it is called in the thread of the connection.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[HttpRequest], HttpExchange]) -> None:
        super().__init__(("127.0.0.1", 0), LoopbackHandler)
        self.answer = answer
        self._connections: set[socket.socket] = set()
        self._in_progress = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": _POLL_S}, name="loopback-provider", daemon=True
        )

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Starts to accept connections."""
        self._thread.start()

    def close(self) -> None:
        """Closes the port and every connection, whatever they are doing, and waits for their threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                _shut(connection)
            self._changed.wait_for(lambda: not self._connections, _CLOSING_S)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Waits until no request is being answered; whether that happened within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_progress == 0, timeout_s)

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Counts a request for as long as it is being answered."""
        with self._changed:
            self._in_progress += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_progress -= 1
                self._changed.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remembers the connection and gives it a thread."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes the connection and forgets it."""
        super().shutdown_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that leave in the middle of a response."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class LoopbackHandler(BaseHTTPRequestHandler):
    """Reads the request of a connection, and sends what is planned for it."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answers a GET request."""
        self._answer()

    def do_POST(self) -> None:
        """Answers a POST request."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Logs nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HttpRequest(self.command, urlsplit(self.path).path, headers, body)
        self.close_connection = True
        with self.server.in_progress():
            exchange = self.server.answer(request)
            self._send(exchange, exchange.response)

    def _send(self, exchange: HttpExchange, response: PlannedResponse) -> None:
        if response.events is not None:
            exchange.chunk_generated(0)
        if response.ending == "never":
            self._client_stays(None)
        elif response.delay_s and not self._client_stays(response.delay_s):
            return
        elif response.events is not None:
            self._stream(exchange, response)
        elif response.ending == "whole":
            self._send_headers(response, ("content-length", str(len(response.body))))
            self.wfile.write(response.body)

    def _stream(self, exchange: HttpExchange, response: PlannedResponse) -> None:
        self._send_headers(response, ("transfer-encoding", "chunked"))
        chunks = 0
        for event in response.events or ():
            if not self._client_stays(response.chunk_delay_s if event.is_content else 0.0):
                return
            if event.is_content:
                chunks += 1
                exchange.chunk_generated(chunks)
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if response.ending == "whole":
            self.wfile.write(b"0\r\n\r\n")

    def _send_headers(self, response: PlannedResponse, *framing: tuple[str, str]) -> None:
        self.send_response_only(response.status)
        own = [("content-type", response.content_type), ("connection", "close")]
        for name, value in [*own, *framing, *response.headers.items()]:
            self.send_header(name, value)
        self.end_headers()

    def _client_stays(self, seconds: float | None) -> bool:
        """Waits, without end for None, unless the client closes the connection; whether it is still there."""
        try:
            self.connection.settimeout(seconds)
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, TimeoutError):
            return True
        finally:
            self.connection.settimeout(None)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The client, or the thread of the connection, closed it.
        return
