import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail import Runtime
from handrail.access.api_keys import KeyScope, new_key
from handrail.access.store import add_key
from handrail.kernel.db.database import Database
from handrail.testing import VirtualClock
from tests.server.live_server import LOGIN_REQUIRED, LiveServer, live_server
from tests.server.shop import Shop, settings


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with empty tables; creating the tables takes longer than most tests."""
    folder = tmp_path_factory.mktemp("empty")
    Database.open("handrail.db", folder).close()
    return folder / "handrail.db"


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock, empty_store: Path) -> Iterator[Runtime]:
    """A runtime with its own store; its clock stands still until it is advanced."""
    shutil.copy(empty_store, tmp_path)
    opened = Runtime(settings(tmp_path), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def local(runtime: Runtime, shop: Shop) -> Iterator[LiveServer]:
    """A server as on 127.0.0.1: every caller is the operator."""
    with live_server(runtime, shop.find, find_spec=shop.find_spec) as server:
        yield server


@pytest.fixture
def public(runtime: Runtime, shop: Shop) -> Iterator[LiveServer]:
    """A server as on a public address: every request needs a login or an API key."""
    with live_server(runtime, shop.find, LOGIN_REQUIRED) as server:
        yield server


def make_key(runtime: Runtime, tenant: str | None, *scopes: KeyScope) -> str:
    """Stores a new key and returns its text."""
    text, key = new_key(tenant, "test", scopes, runtime.clock.now())
    runtime.database.write_now(add_key(key))
    return text
