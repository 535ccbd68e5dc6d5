"""The application on a socket: uvicorn, until it is told to stop."""

import gc
import logging
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from handrail.access.store import anybody
from handrail.kernel.errors import BadInput, BadSettings
from handrail.runs.runtime import Runtime

from .bind_policy import Door

# A page of a large trace makes some 200,000 objects, none of them in a cycle. At Python's own pace the collector goes
# over them again and again, which is half of the page's time.
_COLLECT_EVERY = (100_000, 20, 100)
_GRACE_SECONDS = 10
"""How long requests that are under way may take to end after the server was told to stop."""


def nobody_comes_in(runtime: Runtime, door: Door) -> None:
    """Raises BadSettings where the door needs a login or a key and the store has nobody with one."""
    if not door.is_open and not runtime.database.read_now(anybody):
        raise BadSettings(
            "this address can be reached by others, and nobody could log in: add a person with `handrail people add "
            "NAME`, or a key with `handrail keys create`; or listen on 127.0.0.1"
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises BadInput where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise BadInput(f"cannot listen on {host} port {port}: {error.strerror or error}; take another --port") from None
    made.listen(128)
    return made


def serve_app(app: FastAPI, door: Door, listener: socket.socket, on_start: Callable[[], None]) -> None:
    """Serves `app` on `listener` until SIGINT or SIGTERM, then lets what is under way end."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        # Only behind a proxy, which the operator named, is anybody believed about where a request came from.
        proxy_headers=not door.is_open and door.hosts is not None,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    gc.freeze()
    gc.set_threshold(*_COLLECT_EVERY)
    on_start()
    uvicorn.Server(config).run([listener])
