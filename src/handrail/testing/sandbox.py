"""A runtime for one test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic_ai.models import Model

from handrail.config.settings import Settings
from handrail.runs.runtime import Runtime, use_runtime

from .clock import VirtualClock


@contextmanager
def sandbox(
    folder: Path, *, model: Model | None = None, clock: VirtualClock | None = None, store: str = "handrail.db"
) -> Iterator[Runtime]:
    """Makes a runtime with its own store the current one inside the block.

    Args:
        folder: Where the store is created, such as pytest's `tmp_path`.
        model: The model of agents that name none; by default, the one that the environment determines.
        clock: The runtime's clock; a new VirtualClock by default.
        store: The store's file in the folder, or a database URL.

    Yields:
        The runtime, which is closed at the end of the block.
    """
    settings = Settings(base=folder, store=store)
    runtime = Runtime(settings, clock=clock or VirtualClock(), model=model)
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()
