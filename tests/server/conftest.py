import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail import Runtime
from handrail.access.api_keys import Scope, new_key
from handrail.access.store import add_key
from handrail.kernel.db.database import Database
from handrail.testing import VirtualClock
from tests.server.serving import LOGIN, Served, served
from tests.server.shop import Shop, settings


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables and nothing in them; making the tables takes longer than most tests."""
    folder = tmp_path_factory.mktemp("empty")
    Database.open("handrail.db", folder).close()
    return folder / "handrail.db"


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock, empty_store: Path) -> Iterator[Runtime]:
    """A runtime over a store of its own; its clock stands still until it is moved."""
    shutil.copy(empty_store, tmp_path)
    opened = Runtime(settings(tmp_path), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def local(runtime: Runtime, shop: Shop) -> Iterator[Served]:
    """The server as on 127.0.0.1: whoever reaches it is the operator."""
    with served(runtime, shop.find) as server:
        yield server


@pytest.fixture
def public(runtime: Runtime, shop: Shop) -> Iterator[Served]:
    """The server as on an address that others reach."""
    with served(runtime, shop.find, LOGIN) as server:
        yield server


def make_key(runtime: Runtime, tenant: str | None, *scopes: Scope) -> str:
    """The text of a new key."""
    text, key = new_key(tenant, "test", scopes, runtime.clock.now())
    runtime.database.write_now(add_key(key))
    return text
