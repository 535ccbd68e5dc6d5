"""The application on a real socket, in a thread of this process."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn

from handrail import Runtime
from handrail.server.app import create_app
from handrail.server.bind_policy import Door, door_at
from handrail.server.serving import listening


@dataclass(frozen=True)
class Served:
    """A server that listens on loopback at `url`."""

    url: str
    runtime: Runtime

    def client(self, key: str | None = None) -> httpx2.Client:
        """A client with its own cookies, and with this API key."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20)


@contextmanager
def served(runtime: Runtime, find: Any, door: Door | None = None, background: Sequence[Any] = ()) -> Iterator[Served]:
    """`runtime` behind a server until the block ends; as on 127.0.0.1 where no door is given."""
    app = create_app(runtime, find, door or door_at("127.0.0.1", None), background)
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{port}", runtime)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


LOGIN = Door(is_open=False, hosts=None, secure=False)
"""A server that others reach, without TLS."""
