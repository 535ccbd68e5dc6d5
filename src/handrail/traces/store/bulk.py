"""One statement for many rows, handed to the driver as it is.

SQLAlchemy takes 20 microseconds to look through a row's values, four times what SQLite takes to store them; rows that
are prepared off the writer's thread need no looking through.
"""

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement

Values = tuple[Any, ...]
"""A row's values, in the order of its table's columns."""


def write_rows(conn: Connection, statement: Executable, rows: Sequence[Values]) -> int:
    """Runs `statement` once for each of `rows`, whose values stand in the order of its parameters.

    Returns how many rows of the table it touched.
    """
    if not rows:
        return 0
    return conn.exec_driver_sql(_text(statement, _dialect(conn.dialect.name)), rows).rowcount


@functools.cache
def _text(statement: ClauseElement, dialect: Dialect) -> str:
    return str(statement.compile(dialect=dialect))


@functools.cache
def _dialect(name: str) -> Dialect:
    """The engine's SQL with parameters by position, which is what rows have."""
    if name == "sqlite":
        return sqlite.dialect(paramstyle="qmark")
    from sqlalchemy.dialects.postgresql import psycopg

    return psycopg.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
