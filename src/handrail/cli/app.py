"""The `handrail` command: its subcommands, and how it ends after an error."""

import io
import json
import os
import sys
import traceback
from typing import Annotated

import typer
from rich.text import Text

from handrail import __version__
from handrail.kernel.errors import BadInput, HandrailError
from handrail.kernel.text import sanitize

from . import approvals, db, demo, jobs, keys, run, runs, serve, spend, users, worker
from .eval import app as evals
from .output import console
from .traces import app as traces

app = typer.Typer(
    name="handrail",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"handrail {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run LLM agents in production: evaluations with a gate, cost ceilings, traces, fallbacks and approvals."""


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.add_typer(runs.app, name="runs")
app.add_typer(traces.app, name="traces")
app.add_typer(evals.app, name="eval")
app.add_typer(approvals.app, name="approvals")
app.add_typer(jobs.app, name="jobs")
app.command("spend")(spend.spend)
app.command("worker")(worker.worker)
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(db.app, name="db")


def main() -> None:
    """Runs the command. An expected error is printed in one line, any other with its traceback; both exit with 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks is printed escaped, instead of raising an error.
            stream.reconfigure(errors="backslashreplace")
    # Pydantic AI prints a banner on a terminal, in the middle of our tables.
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    try:
        _check_encoding(sys.argv[1:])
        app()
    except HandrailError as error:
        _report({"code": error.code, "message": str(error)})
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - Python's own exit code, 1, would mean a negative result
        message = "".join(traceback.format_exception_only(error)).strip()
        _report({"code": "bug", "message": message, "traceback": traceback.format_exc()})
        sys.exit(2)


def _check_encoding(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise BadInput(f"argument {argument!a} is not valid UTF-8; convert it first") from None


def _report(error: dict[str, str]) -> None:
    if "--json" in sys.argv:
        sys.stderr.write(json.dumps({"error": error}) + "\n")
        return
    sys.stderr.write(sanitize(error.get("traceback", "")))
    text = Text.assemble(("Error:", "bold red"), " ", sanitize(error["message"]))
    console(stderr=True).print(text, soft_wrap=True)
