"""`handrail db`: the store's tables."""

import typer

from handrail.kernel import load_settings, store_url, upgrade

from .screen import AsJson, console, print_json

app = typer.Typer(help="The store.", no_args_is_help=True)


@app.callback()
def db() -> None:
    """The store."""


@app.command("upgrade")
def upgrade_tables(as_json: AsJson = False) -> None:
    """Bring the store's tables up to date. SQLite does so by itself when it is opened.

    Example: `HANDRAIL_STORE=postgresql://handrail@db/handrail handrail db upgrade`
    """
    settings = load_settings()
    url = store_url(settings.store, settings.base)
    before, after = upgrade(url)
    if as_json:
        print_json({"store": url.render_as_string(), "before": before, "after": after})
    elif before == after:
        console().print(f"Up to date: tables {after}.")
    else:
        console().print(f"Upgraded: tables {before or 'none'} to {after}.")
