"""`handrail serve`: the pages and the API, and the worker with them."""

import logging
import signal
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from handrail.kernel.errors import MissingExtra
from handrail.registry import find_agent, find_eval_spec
from handrail.worker import run_worker

from .logging_setup import LogFormat, configure_logging
from .runtime import open_runtime
from .signals import ExitDeadline

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
    """Serve the pages and the API until stopped with Ctrl-C or SIGTERM.

    On 127.0.0.1 everybody on this machine is the operator. On any other address a login or an API key is required.

    Example: `handrail serve --port 8321`
    """
    try:
        from handrail.server.app import create_app
        from handrail.server.bind_policy import bind_policy_for
        from handrail.server.http_server import REQUEST_SECONDS, open_listener, require_credentials, run_server
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    configure_logging(log_format)
    with open_runtime() as runtime:
        policy = bind_policy_for(host, public_url)
        require_credentials(runtime, policy)
        find = partial(find_agent, settings=runtime.settings)
        background = () if no_worker else (lambda stop: run_worker(runtime, find, stop=stop),)
        app = create_app(runtime, find, partial(find_eval_spec, settings=runtime.settings), policy, background)
        with open_listener(host, port) as listener:
            url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
            if policy.requires_auth and not policy.secure:
                _logger.warning("passwords and API keys are sent unencrypted: put a proxy with TLS in front")
            deadline = ExitDeadline(max(runtime.settings.worker.grace_seconds, REQUEST_SECONDS))
            # Uvicorn finishes running requests, then raises the signal again.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                run_server(app, policy, listener, partial(_log_start, url, public_url), deadline.at_signal)
            deadline.at_end()


def _log_start(url: str, public_url: str | None) -> None:
    public = f", public URL {public_url}" if public_url else ""
    _logger.info("Handrail is running at %s%s; stop it with Ctrl-C", url, public)


def _missing(error: ModuleNotFoundError) -> Exception:
    return MissingExtra("the server", "server") if not (error.name or "").startswith("handrail") else error
