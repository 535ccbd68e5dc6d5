"""The runtime that a command works with."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from handrail.config.sources import load_settings
from handrail.runs.runtime import Runtime, use_runtime

_GC_THRESHOLDS = (10_000, 20, 20)


@contextmanager
def open_runtime() -> Iterator[Runtime]:
    """The runtime that the settings describe, as the current one until the block ends."""
    # Many concurrent runs allocate objects quickly: at Python's default of a collection every 700 objects, collecting
    # took a quarter of a cached eval run's time.
    gc.set_threshold(*_GC_THRESHOLDS)
    runtime = Runtime(load_settings())
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()
