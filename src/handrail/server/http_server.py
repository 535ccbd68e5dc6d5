"""The application on a socket, served by uvicorn."""

import gc
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from handrail.access.store import has_credentials
from handrail.kernel.errors import BadInput, BadSettings
from handrail.runs.runtime import Runtime
from handrail.worker import StopSignal

from .bind_policy import BindPolicy

# The page of a large trace creates some 200,000 objects, none of them in a cycle. With Python's default thresholds the
# garbage collector scans them again and again, which takes half of the page's time.
_GC_THRESHOLDS = (100_000, 20, 100)
REQUEST_SECONDS = 10
"""How long running requests may take to finish after the server was told to stop."""


def require_credentials(runtime: Runtime, policy: BindPolicy) -> None:
    """Raises BadSettings if the server needs a login, and there is neither a dashboard user nor an API key."""
    if policy.requires_auth and not runtime.database.read_now(has_credentials()):
        raise BadSettings(
            "others can reach this address, and nobody could log in: add a user with `handrail users add NAME` or an "
            "API key with `handrail keys create`, or listen on 127.0.0.1"
        )


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: The address or host name to bind to.
        port: The port; 0 takes a free one.

    Raises:
        BadInput: The address cannot be bound, for example because the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadInput(f"cannot listen on {host} port {port}: {error.strerror or error}; try another --port") from None
    listener.listen(128)
    return listener


class _Server(uvicorn.Server):
    """Stops the background tasks as soon as it is told to stop; a second signal, of either kind, ends the wait."""

    def __init__(self, config: uvicorn.Config, stop: StopSignal, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at SIGINT and SIGTERM."""
        self._on_signal()
        self._stop.request()
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)


def run_server(
    app: FastAPI,
    policy: BindPolicy,
    listener: socket.socket,
    on_start: Callable[[], None],
    on_signal: Callable[[], None],
) -> None:
    """Serves an application until SIGINT or SIGTERM, then lets running requests and background tasks finish.

    Args:
        app: The application.
        policy: Decides whether a proxy's forwarding headers are trusted.
        listener: The socket to serve on.
        on_start: Called once, just before requests are accepted.
        on_signal: Called at every signal.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        # Anybody can send X-Forwarded-For. Login throttling counts by address, so it is trusted from a proxy only.
        proxy_headers=policy.behind_proxy,
        timeout_graceful_shutdown=REQUEST_SECONDS,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    on_start()
    _Server(config, app.state.stop, on_signal).run([listener])
