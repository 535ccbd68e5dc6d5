from pathlib import Path

import pytest

from tests.cli.terminal import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with agents and no store yet."""
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The same for all tests of a module, store included."""
    return Folder(tmp_path_factory.mktemp("lasting"))
