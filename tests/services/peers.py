"""Other libraries in an environment of their own, since some pin versions that Handrail does not use."""

import os
from pathlib import Path

import pytest

_PYTHON = Path(__file__).parents[2] / "build" / "peers" / "bin" / "python"


def peer_python() -> str:
    """The Python that has the peers installed, which `make slow` sets up. Skips the test where there is none."""
    if not _PYTHON.exists():
        reason = f"no {_PYTHON}: `make slow` installs the peers there"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(_PYTHON)
