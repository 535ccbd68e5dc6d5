"""Real HTTP servers on loopback, for the seams where the network would be."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """A file server that knows byte ranges and can break off, as real ones do."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before it breaks off."""
    starts: list[int] = field(default_factory=list)
    """Where each request asked to start."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.starts.append(start)
        rest = self.body[start if self.ranges else 0 :]
        request.send_response(206 if start and self.ranges else self.status)
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest[: self.break_after.pop(0)] if self.break_after else rest)


@contextmanager
def file_serving() -> Iterator[FileServer]:
    """A file server at `url`, which accepts any path, until the block ends."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_POST = do_GET  # noqa: N815 - http.server's name

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
