"""Runs here have a store of their own and a clock that only the test moves."""

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
    """The current runtime; no model serves agents that name none."""
    with sandbox(tmp_path, clock=clock) as opened:
        yield opened
