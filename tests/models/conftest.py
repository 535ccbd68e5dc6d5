from collections.abc import Iterator

import pytest

from tests.models.loopback import FileServer, file_serving


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    with file_serving() as server:
        yield server
