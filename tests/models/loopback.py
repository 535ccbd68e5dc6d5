"""Real HTTP servers on loopback, in place of the network."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """A server that serves one file at any path, with the Hugging Face hub's headers."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    requests: list[str] = field(default_factory=list)
    """The path of each request for content."""

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        request.send_response(self.status)
        request.send_header("Content-Length", str(len(self.body)))
        request.send_header("ETag", f'"{hashlib.sha256(self.body).hexdigest()}"')
        request.send_header("X-Repo-Commit", "a" * 40)
        request.end_headers()
        if request.command != "HEAD":
            self.requests.append(request.path)
            request.wfile.write(self.body)


@contextmanager
def serve_file() -> Iterator[FileServer]:
    """A file server at `url`, which accepts any path, until the block ends."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.respond(self)

        do_HEAD = do_POST = do_GET  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
