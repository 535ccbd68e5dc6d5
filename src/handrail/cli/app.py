"""`handrail`: its command groups put together, and how errors end."""

import json
import sys

import typer
from rich.console import Console

from handrail.kernel import HandrailError

from . import database, demo, evals, run, runs, traces

app = typer.Typer(
    name="handrail",
    help="What your agent holds on to in production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.add_typer(runs.app, name="runs")
app.add_typer(traces.app, name="traces")
app.add_typer(evals.app, name="eval")
app.add_typer(database.app, name="db")


def main() -> None:
    """The program: errors that Handrail raises on purpose end it in one line and exit code 2."""
    try:
        app()
    except HandrailError as error:
        if "--json" in sys.argv:
            sys.stderr.write(json.dumps({"error": {"code": error.code, "message": str(error)}}) + "\n")
        else:
            Console(stderr=True).print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
