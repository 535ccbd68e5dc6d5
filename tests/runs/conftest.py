"""Each test has its own store, and a clock that only the test advances."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail import Runtime
from handrail.testing import VirtualClock, sandbox


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    """The current runtime, without a default model."""
    with sandbox(tmp_path, clock=clock) as active:
        yield active
