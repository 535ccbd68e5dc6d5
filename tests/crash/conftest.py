"""Stores, one after another, for the tests that injure a process many times."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from tests.crash.processes import FAST_FOLDER


class Stores(Protocol):
    """Makes stores for one process at a time: the store before may be gone then."""

    def __call__(self) -> str:
        """Creates an empty store and returns its address."""
        ...

    def keep(self) -> None:
        """Keeps what is in the last store; no process may have it open."""
        ...

    def again(self) -> str:
        """Creates a store with what was kept, and returns its address."""
        ...


class _Files:
    """A file for each store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._empty = self._kept = folder / "empty.db"
        Database.open(self._empty.name, folder).close()

    def __call__(self) -> str:
        return self._copy(self._empty)

    def keep(self) -> None:
        self._kept = self._folder / f"{self._count}.db"

    def again(self) -> str:
        return self._copy(self._kept)

    def _copy(self, file: Path) -> str:
        self._count += 1
        copy = self._folder / f"{self._count}.db"
        shutil.copy(file, copy)
        return f"sqlite:///{copy}"


class _Rows:
    """One database, whose rows are replaced: a new database for each injury would take seconds."""

    def __init__(self, url: str, engine: Engine) -> None:
        self._url = url
        self._engine = engine
        self._tables = sorted(set(inspect(engine).get_table_names()) - {"alembic_version"})
        # Of tables this small, TRUNCATE takes ten times as long.
        self._deletions = [f"DELETE FROM public.{table}" for table in self._tables]

    def __call__(self) -> str:
        self._execute(*self._deletions)
        return self._url

    def keep(self) -> None:
        copies = (f"CREATE TABLE kept.{table} AS TABLE public.{table}" for table in self._tables)
        self._execute("DROP SCHEMA IF EXISTS kept CASCADE", "CREATE SCHEMA kept", *copies)

    def again(self) -> str:
        copies = (f"INSERT INTO public.{table} SELECT * FROM kept.{table}" for table in self._tables)
        self._execute(*self._deletions, *copies)
        return self._url

    def _execute(self, *statements: str) -> None:
        with self._engine.begin() as conn:
            for statement in statements:
                conn.execute(text(statement))


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Stores of the engine that the parameter names."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield _Files(Path(stack.enter_context(TemporaryDirectory(dir=FAST_FOLDER))))
            return
        url = stack.enter_context(request.getfixturevalue("postgres").database())
        upgrade(store_url(url, Path()))
        engine = create_engine(url)
        stack.callback(engine.dispose)
        yield _Rows(url, engine)
