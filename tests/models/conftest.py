from collections.abc import Iterator

import pytest

from tests.models.loopback import FileServer, serve_file


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    with serve_file() as server:
        yield server
