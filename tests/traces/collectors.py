"""Collectors on loopback: one that responds with given statuses, one that never responds, and an unused address."""

import gzip
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

PATH = "/v1/traces"


class RespondingCollector(ThreadingHTTPServer):
    """Responds with each of `statuses` in turn, then always with the last; `bodies` are those that got a 200."""

    def __init__(self, statuses: list[int], rejected: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = statuses
        self.rejected = rejected
        self.requests = 0
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()
        self._answered: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait_for(self, requests: int) -> None:
        """Waits until that many more requests have been answered, at most 30 seconds for each."""
        for _ in range(requests):
            self._answered.get(timeout=30)

    def count_response(self, status: int) -> None:
        self._answered.put(status)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: RespondingCollector

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.requests += 1
            self.server.headers.append(dict(self.headers.items()))
            status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
            if status == 200 and body:
                self.server.bodies.append(gzip.decompress(body))
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = self.server.rejected
        encoded = response.SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Location", self.server.address)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)
        self.server.count_response(status)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def responding_collector(*statuses: int, rejected: int = 0) -> Iterator[RespondingCollector]:
    server = RespondingCollector(list(statuses), rejected)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class HangingCollector:
    """Accepts connections and requests, and never responds."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._connections: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{server.getsockname()[1]}{PATH}"

    def wait_for_request(self) -> None:
        connection, _ = self._server.accept()
        self._connections.append(connection)
        connection.recv(1)

    def close_connections(self) -> None:
        for connection in self._connections:
            connection.close()


@contextmanager
def hanging_collector() -> Iterator[HangingCollector]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        collector = HangingCollector(server)
        yield collector
    collector.close_connections()


def unused_address() -> str:
    """The address of a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}{PATH}"
