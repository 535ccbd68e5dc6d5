"""Gets the built-in model's weights for the demo, with a progress bar; from the package-index mirror where need be."""

import tomllib
from importlib.resources import files

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from handrail.config.settings import Settings
from handrail.models.local.catalog import PREFIX, Weights, builtin_weights
from handrail.models.local.download import ChunkWheels, Hub, NoRoom, Source
from handrail.models.local.weights import ModelUnavailable, fetch_weights, find_weights
from handrail.models.selection import choose_here


def prepare_model(settings: Settings, screen: Console) -> str:
    """Makes the model that the settings lead to ready, and says in a sentence which it is, or why there is none."""
    choice = choose_here(settings.model)
    if not choice.name.startswith(PREFIX):
        return f"Model: {choice.name} ({choice.why})."
    weights = builtin_weights(choice.name)
    try:
        if find_weights(weights, settings) is None:
            _download(weights, settings, screen)
    except (ModelUnavailable, NoRoom) as error:
        return f"No model: {error}. The runs below take the fallback path: the shop's rules, without a model."
    return f"Model: {choice.name} ({choice.why}). It is small: good for a first look, not for production."


def _download(weights: Weights, settings: Settings, screen: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen) as progress:
        bar = progress.add_task(f"Weights of {weights.model}", total=weights.size)
        fetch_weights(weights, settings, _sources(weights), lambda found: progress.update(bar, completed=found.done))


def _sources(weights: Weights) -> tuple[Source, ...]:
    mirror = tomllib.loads((files("handrail.examples.support_triage") / "mirror.toml").read_text(encoding="utf-8"))
    return Hub(), ChunkWheels(tuple(mirror[weights.model]["packages"]))
