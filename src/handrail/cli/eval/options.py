"""Options that several `handrail eval` commands share."""

from pathlib import Path
from typing import Annotated

import typer

from handrail.evals.runner.response_cache import RecordedResponses, ResponseCache
from handrail.kernel.errors import BadInput

AgentName = Annotated[str, typer.Argument(help="The agent's name in handrail.toml, or a reference agent's.")]
Concurrency = Annotated[
    int,
    typer.Option(
        min=1, max=1_000, help="How many trials run at once, at most; fewer while the provider limits the rate."
    ),
]
CacheFile = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FILE", help="Reuse the model's responses in this file, and add new ones to it."),
]
RecordedFile = Annotated[
    Path | None,
    typer.Option("--recorded", metavar="FILE", help="Use only the responses in this file; no model is called."),
]
Reason = Annotated[str, typer.Option("--why", help="The reason for the change, kept in the lock's history.")]


def open_responses(cache: Path | None, recorded: Path | None) -> ResponseCache | None:
    """The responses that `--cache` or `--recorded` names. Raises BadInput for both options, and for a broken file."""
    if cache is not None and recorded is not None:
        raise BadInput(
            "--cache and --recorded exclude each other; --cache calls the model for a response that is missing, "
            "--recorded never does"
        )
    if recorded is not None:
        return RecordedResponses(recorded)
    return None if cache is None else ResponseCache(cache)
