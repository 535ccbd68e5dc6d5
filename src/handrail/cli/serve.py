"""`handrail serve`: the pages and the API, and the worker with them."""

import logging
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from handrail.kernel.errors import MissingExtra, StoreError
from handrail.registry import find_agent, find_eval_spec
from handrail.runs.runtime import Runtime
from handrail.worker import FindAgent, run_worker

from .logging_setup import LogFormat, configure_logging
from .runtime import open_runtime

_STORE_PAUSE_SECONDS = 5.0
"""How long the worker waits after an error of the store."""

_logger = logging.getLogger(__name__)


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; 127.0.0.1 can be reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 picks a free one.")] = 8321,
    public_url: Annotated[
        str | None, typer.Option(help="The URL at which a proxy serves it to browsers. A login is then required.")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Leave background jobs to `handrail worker`.")] = False,
    log_format: LogFormat = "text",
) -> None:
    """Serve the pages and the API until stopped with Ctrl-C.

    On 127.0.0.1 everybody on this machine is the operator. On any other address a login or an API key is required.

    Example: `handrail serve --port 8321`
    """
    try:
        from handrail.server.app import create_app
        from handrail.server.bind_policy import bind_policy_for
        from handrail.server.http_server import open_listener, require_credentials, run_server
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    configure_logging(log_format)
    with open_runtime() as runtime:
        policy = bind_policy_for(host, public_url)
        require_credentials(runtime, policy)
        find = partial(find_agent, settings=runtime.settings)
        background = () if no_worker else (partial(_run_worker, runtime, find),)
        app = create_app(runtime, find, partial(find_eval_spec, settings=runtime.settings), policy, background)
        with open_listener(host, port) as listener:
            url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
            if policy.requires_auth and not policy.secure:
                _logger.warning("passwords and API keys are sent unencrypted: put a proxy with TLS in front")
            # Uvicorn finishes running requests, then raises the interrupt again.
            with suppress(KeyboardInterrupt):
                run_server(app, policy, listener, partial(_log_start, url, public_url))


def _log_start(url: str, public_url: str | None) -> None:
    public = f", public URL {public_url}" if public_url else ""
    _logger.info("Handrail is running at %s%s; stop it with Ctrl-C", url, public)


async def _run_worker(runtime: Runtime, find: FindAgent) -> None:
    while True:
        try:
            await run_worker(runtime, find, lambda _result: None)
        except StoreError as error:
            # The store may come back, and the pages report the problem meanwhile.
            _logger.error("the worker pauses because the store failed", extra={"error": str(error)})
            await runtime.clock.sleep(_STORE_PAUSE_SECONDS)


def _missing(error: ModuleNotFoundError) -> Exception:
    return MissingExtra("the server", "server") if not (error.name or "").startswith("handrail") else error
