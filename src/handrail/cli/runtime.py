"""The runtime of one command: opened from the settings, closed at its end."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from handrail.config.settings import load_settings
from handrail.runs.runtime import Runtime, use_runtime

_NEW_OBJECTS = (10_000, 20, 20)


@contextmanager
def opened() -> Iterator[Runtime]:
    """The current runtime while the command runs."""
    # Many runs side by side make objects faster than Python's default reckons with: looking for garbage among them
    # every 700 objects took a quarter of a cached eval run's time.
    gc.set_threshold(*_NEW_OBJECTS)
    runtime = Runtime(load_settings())
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()
