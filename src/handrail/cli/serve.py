"""`handrail serve`: the pages and the API, with the worker beside them."""

from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from handrail.kernel.errors import MissingExtra, StoreError
from handrail.registry import find_agent
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime
from handrail.worker import Done, FindAgent, work

from .output import console, excerpt
from .runtime import opened

_PAUSE_SECONDS = 5.0
"""How long the worker waits where the store fails."""


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; 127.0.0.1 is reached from here only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8321,
    public_url: Annotated[
        str | None, typer.Option(help="Where browsers reach it through a proxy: a login is needed then.")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Leave decided runs to `handrail worker`.")] = False,
) -> None:
    """Serve the pages and the API, until it is stopped (Ctrl-C).

    On 127.0.0.1 whoever uses this machine is the operator. Any other address needs people or keys, and a login.
    Example: `handrail serve --port 8321`
    """
    try:
        from handrail.server.app import create_app
        from handrail.server.bind_policy import door_at
        from handrail.server.serving import listening, nobody_comes_in, serve_app
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    screen = console(stderr=True)
    with opened() as runtime:
        door = door_at(host, public_url)
        nobody_comes_in(runtime, door)

        def find(name: str) -> GovernedAgent[Any, Any]:
            return find_agent(name, runtime.settings)

        background = () if no_worker else (lambda: _work(runtime, find, screen),)
        app = create_app(runtime, find, door, background)
        listener = listening(host, port)
        with listener:
            name = f"[{host}]" if ":" in host else host
            where = f"http://{name}:{listener.getsockname()[1]}" + (f", reached as {public_url}" if public_url else "")
            if not (door.is_open or door.secure):
                _tell(screen, "Passwords and keys go over the network in the clear: put a proxy with TLS before it.")
            # Uvicorn ends what is under way, then raises what it was interrupted by.
            with suppress(KeyboardInterrupt):
                serve_app(app, door, listener, lambda: _tell(screen, f"Handrail is at {where}. Ctrl-C stops it."))


def _tell(screen: Console, text: str) -> None:
    screen.print(text, markup=False, soft_wrap=True)


async def _work(runtime: Runtime, find: FindAgent, screen: Console) -> None:
    def tell(each: Done) -> None:
        if each.error is not None:
            screen.print(f"{each.job.key}  [red]{excerpt(each.error, 400)}[/]", soft_wrap=True)

    while True:
        try:
            await work(runtime, find, tell)
        except StoreError as error:
            # The store may come back; the pages say meanwhile that it is away.
            screen.print(f"worker  [red]{excerpt(str(error), 400)}[/]", soft_wrap=True)
            await runtime.clock.sleep(_PAUSE_SECONDS)


def _missing(error: ModuleNotFoundError) -> Exception:
    return MissingExtra("the server", "server") if not (error.name or "").startswith("handrail") else error
