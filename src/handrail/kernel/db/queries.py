"""SQL that several tables need: insert a row, find one by the beginning of its id, cut time into equal intervals."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, Table, literal_column, type_coerce

from handrail.kernel.errors import NotFound

from .operation import operation

_BATCH = 1_000


@operation
def insert_row(conn: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row that was made outside the operation."""
    conn.execute(table.insert(), dict(row))


def find_by_prefix(
    conn: Connection, query: Select[Any], column: ColumnElement[str], prefix: str, *, what: str, hint: str
) -> Row[Any]:
    """The one row whose id is `prefix` or begins with it.

    Args:
        conn: The connection to read with.
        query: Selects the rows that may be found, of one tenant for instance.
        column: The id.
        prefix: An id, or as much of its beginning as makes it unique.
        what: What a row is, in the singular, for the error message.
        hint: Where ids are listed, for the error message.

    Raises:
        NotFound: If no row, or more than one, has such an id.
    """
    rows = conn.execute(query.where(column.startswith(prefix, autoescape=True)).limit(2)).all()
    if len(rows) != 1:
        problem = f"several {what}s begin" if rows else f"no {what} is called or begins"
        raise NotFound(f"{problem} with {prefix!r}; {hint}")
    return rows[0]


def interval_start(column: ColumnElement[Any], length: timedelta) -> ColumnElement[int]:
    """The beginning of the interval that a moment falls into, in nanoseconds; intervals are counted from 1970 in UTC.

    Args:
        column: A moment: a Timestamp column, or nanoseconds since 1970.
        length: How long each interval is.
    """
    # Written into the statement: Postgres takes two parameters for two expressions, and refuses to group by the one
    # that it selects.
    nanoseconds = literal_column(str(length // timedelta(microseconds=1) * 1_000), BigInteger)
    moment = type_coerce(column, BigInteger)
    return moment - moment % nanoseconds


def batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """The ids in lists of as many as every engine takes as parameters of one statement."""
    remaining = list(ids)
    for start in range(0, len(remaining), _BATCH):
        yield remaining[start : start + _BATCH]
