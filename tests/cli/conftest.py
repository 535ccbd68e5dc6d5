from pathlib import Path

import pytest

from tests.cli.terminal import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A directory with agents and no store yet."""
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A directory with agents that all tests of a module share, including its store."""
    return Folder(tmp_path_factory.mktemp("shared"))
