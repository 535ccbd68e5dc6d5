"""The application on a real socket, in a thread of this process."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn

from handrail import NotFound, Runtime
from handrail.evals import EvalSpec
from handrail.server.app import create_app
from handrail.server.bind_policy import BindPolicy, bind_policy_for
from handrail.server.http_server import open_listener


@dataclass(frozen=True)
class LiveServer:
    """A server that listens on loopback at `url`."""

    url: str
    runtime: Runtime

    def client(self, key: str | None = None) -> httpx2.Client:
        """A client with its own cookies and, if given, an API key."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20)


def no_eval_spec(name: str) -> EvalSpec[Any, Any]:
    """Raises NotFound for every agent."""
    raise NotFound(f"there is no agent {name!r}")


@contextmanager
def live_server(
    runtime: Runtime,
    find: Any,
    policy: BindPolicy | None = None,
    background: Sequence[Any] = (),
    find_spec: Callable[[str], EvalSpec[Any, Any]] = no_eval_spec,
) -> Iterator[LiveServer]:
    """Serves `runtime` until the block ends, by default as on 127.0.0.1."""
    app = create_app(runtime, find, find_spec, policy or bind_policy_for("127.0.0.1", None), background)
    listener = open_listener("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield LiveServer(f"http://127.0.0.1:{port}", runtime)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


LOGIN_REQUIRED = BindPolicy(requires_auth=True, allowed_hosts=None, secure=False)
"""The policy of a server on a public address without TLS."""
