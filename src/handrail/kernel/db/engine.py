"""What differs between SQLite and Postgres: how to open each, and what its errors mean."""

import functools
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError

from handrail.kernel.errors import (
    BadSettings,
    MissingExtra,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
)

BUSY_SECONDS = 10.0
"""How long a statement waits for another process's write before it is StoreBusy."""

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

# One process checkpoints (see group_writer.py), so there are no automatic checkpoints.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    # A log that is begun anew is cut to this, so that its size tells how much of it is not yet checkpointed.
    "journal_size_limit=1048576",
    "foreign_keys=ON",
    "temp_store=MEMORY",
)

_SQLITE_ERRORS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreBusy, "another process is writing; try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "another connection holds the table; try again"),
    sqlite3.SQLITE_FULL: (StoreFull, "the disk is full; make room and try again"),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnly,
        "the file cannot be written; correct its permissions or name another store",
    ),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "the file is damaged; restore a backup, or move it away to start empty"),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "the file is not a database; name another store, or move it away"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnreachable,
        "the file cannot be opened; does its directory exist, and may you write there?",
    ),
    sqlite3.SQLITE_IOERR: (StoreUnreachable, "the disk failed to read or write; check it and try again"),
}
_POSTGRES_ERRORS: dict[str, tuple[type[StoreError], str]] = {
    "40001": (StoreBusy, "a conflict with another transaction; try again"),
    "40P01": (StoreBusy, "a deadlock with another transaction was broken; try again"),
    "55P03": (StoreBusy, "another transaction holds the rows; try again"),
    "53100": (StoreFull, "the server's disk is full; make room and try again"),
    "25006": (StoreReadOnly, "the server takes no writes; is it a replica?"),
    "XX001": (StoreDamaged, "the server reports damaged data; restore a backup"),
}
_POSTGRES_LOST = (StoreUnreachable, "the server does not answer; start it, or correct the store's address")


def store_url(store: str, base: Path) -> URL:
    """A store's address as a URL.

    Args:
        store: A path, `sqlite:///path` or `postgresql://...`.
        base: The directory that a relative path is relative to.

    Raises:
        BadSettings: If the address is not valid.
    """
    if "://" not in store:
        return URL.create("sqlite", database=str((base / store).expanduser()))
    try:
        url = make_url(store)
    except ArgumentError:
        raise BadSettings("store: not a valid address; give a path, sqlite:///path or postgresql://host/name") from None
    match url.get_backend_name():
        case "sqlite":
            if url.database in (None, "", ":memory:"):
                raise BadSettings("store: a store in memory would be lost with its first connection; name a file")
            return URL.create("sqlite", database=str(base / str(url.database)))
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise BadSettings(f"store: {other} is not supported; use SQLite (a path) or postgresql://")


def describe_store(url: URL) -> str:
    """A store's address without its passwords: the user's, and those that Postgres takes as parameters."""
    hidden = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def writing_engine(url: URL) -> Engine:
    """An engine for writes. On SQLite its connections are in autocommit mode: the writer sends BEGIN itself."""
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, *_PRAGMAS)
    try:
        return create_engine(url, hide_parameters=True, pool_size=10, max_overflow=20, pool_pre_ping=True)
    except ModuleNotFoundError:
        raise MissingExtra("a Postgres store", "postgres") from None


def detach_sockets(connections: Iterable[Any]) -> None:
    """Detaches a forked process from its parent's connections to Postgres, which stay as they are in the parent.

    Closing them would end the parent's session, and keeping them would keep the session alive after the parent's death.
    So each socket becomes /dev/null here.

    Args:
        connections: Inherited connections of psycopg, which nobody uses again.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for connection in connections:
            # psycopg raises its own error for a connection that was closed.
            with suppress(Exception):
                os.dup2(null, connection.fileno(), inheritable=False)
    finally:
        os.close(null)


def reading_engine(writing: Engine) -> Engine:
    """An engine for reads of the same store: each transaction sees one snapshot, and can change nothing."""
    if writing.dialect.name == "sqlite":
        return _sqlite_engine(writing.url, *_PRAGMAS, "query_only=ON")
    return writing.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _sqlite_engine(url: URL, *pragmas: str) -> Engine:
    engine = create_engine(
        url, hide_parameters=True, isolation_level="AUTOCOMMIT", connect_args={"timeout": BUSY_SECONDS}
    )

    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        for pragma in pragmas:
            _set(connection, pragma)

    event.listen(engine, "connect", prepare)
    return engine


def _set(connection: sqlite3.Connection, pragma: str) -> None:
    """Sets a pragma, trying again: SQLite does not wait where two connections switch a new file to WAL at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def insert(dialect: str, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT with ON CONFLICT, in the dialect of that name."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # 30 ms, and most never need it

    return postgresql.insert(table)


@functools.cache
def _insert_new(dialect: str, table: Table) -> "sqlite.Insert | postgresql.Insert":
    # Cached, because SQLAlchemy looks up a statement's compiled form by a key that it derives once per statement.
    return insert(dialect, table).on_conflict_do_nothing()


def insert_new(conn: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Inserts a row unless its key is taken, and returns whether it did."""
    statement = _insert_new(conn.dialect.name, table)
    # Without the option SQLAlchemy does not report an INSERT's row count on Postgres.
    return conn.execute(statement, dict(row), execution_options={"preserve_rowcount": True}).rowcount == 1


def in_transaction(conn: Connection) -> bool:
    """Whether a SQLite connection's transaction is still open: a full or failing disk ends it."""
    return bool(conn.connection.dbapi_connection.in_transaction)  # type: ignore[union-attr]


@contextmanager
def store_errors(url: URL) -> Iterator[None]:
    """Raises a StoreError that says what to do in place of the driver's errors about the store; others pass."""
    try:
        yield
    except DBAPIError as error:
        known = _meaning(error)
        if known is None:
            raise
        kind, advice = known
        raise kind(f"store {describe_store(url)}: {advice}") from error


def _meaning(error: DBAPIError) -> tuple[type[StoreError], str] | None:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _SQLITE_ERRORS.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
    state = getattr(cause, "sqlstate", None)
    if state in _POSTGRES_ERRORS:
        return _POSTGRES_ERRORS[state]
    lost = error.connection_invalidated or (state is None and type(cause).__name__ == "OperationalError")
    # Class 08 is "connection exception", 57P0x "the server is going down" (PostgreSQL, appendix A).
    return _POSTGRES_LOST if lost or str(state).startswith(("08", "57P0")) else None
