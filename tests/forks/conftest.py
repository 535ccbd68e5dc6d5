"""A runtime on each engine, used by the parent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail import Runtime
from handrail.kernel.db.engine import store_url as parse_store_url
from handrail.kernel.db.schema import upgrade
from handrail.testing import VirtualClock, sandbox

from .children import time_limit


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock, store_url: str) -> Iterator[Runtime]:
    """The current runtime. A test that hangs fails, also while the runtime closes."""
    upgrade(parse_store_url(store_url, tmp_path))
    with time_limit(60), sandbox(tmp_path, clock=clock, store=store_url) as active:
        yield active
