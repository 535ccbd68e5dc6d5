"""The runtime of one command: opened from the settings, closed at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from handrail.kernel import load_settings
from handrail.runs import Runtime, use_runtime


@contextmanager
def opened() -> Iterator[Runtime]:
    """The current runtime while the command runs."""
    runtime = Runtime(load_settings())
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()
