"""Fixtures of the store tests, which run on SQLite and on Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade


@pytest.fixture
def address(store_url: str) -> str:
    """The address of a store with its tables."""
    _upgrade(store_url)
    return store_url


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    """An open store with empty tables."""
    opened = Database.open(address)
    yield opened
    opened.close()


def _upgrade(address: str) -> None:
    upgrade(store_url(address, Path()))
