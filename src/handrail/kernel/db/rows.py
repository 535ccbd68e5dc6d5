"""A row of a dataclass and back, by the names of fields and columns.

    conn.execute(approvals.insert(), to_row(approval, approvals))
    [from_row(Approval, row) for row in conn.execute(select(approvals))]

A column whose name in the database has to differ (`user` is a keyword of Postgres) has the field's name as its `key`:
`Column("user_id", String, key="user")`. What is not a plain copy is given by name, and everything else by the column
types in `columns.py`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_origin, get_type_hints

from sqlalchemy import Row, Table

from handrail.kernel.serialization import canonical_json, pack

from .columns import Json, Packed

T = TypeVar("T")


def to_row(value: object, table: Table, /, **others: Any) -> dict[str, Any]:
    """The values of a table's columns from the dataclass's fields of the same names.

    Documents are written and compressed here, so that a row made outside an operation costs the writer nothing more.

    Args:
        value: A dataclass instance. Fields without a column, and columns without a field, are left out.
        table: The table the row is for.
        **others: Values of columns that no field holds, or that differ from the field's.

    Returns:
        A row by the keys of the table's columns.
    """
    kind: Any = type(value)
    values = {name: getattr(value, name) for name in _fields(kind) if name in table.c} | others
    return {name: _written(table, name, item) for name, item in values.items()}


def from_row(kind: Callable[..., T], row: Row[Any], /, **others: Any) -> T:
    """The dataclass that a row holds.

    Args:
        kind: The dataclass. A field without a column keeps its default.
        row: A row with the columns of the fields, by name or key; others are ignored.
        **others: Values of fields that no column holds, or that differ from the column's.
    """
    values = row._mapping  # noqa: SLF001 - SQLAlchemy's public access by name; attributes clash with tuple's methods
    return kind(
        **{
            name: values[name] if container is None or values[name] is None else container(values[name])
            for name, container in _fields(kind).items()
            if name not in others and name in values
        },
        **others,
    )


@functools.cache
def _fields(kind: Any) -> Mapping[str, Callable[[Any], Any] | None]:
    """A dataclass's fields, with what makes a tuple or set again of the list that JSON has in its place."""
    hints = get_type_hints(kind)
    containers = {tuple: tuple, frozenset: frozenset}
    return {field.name: containers.get(get_origin(hints[field.name])) for field in fields(kind)}


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    return dict(value) if isinstance(value, Mapping) else value


def _written(table: Table, name: str, value: Any) -> Any:
    if value is None:
        return None
    match table.c[name].type:
        case Packed():
            return pack(value)
        case Json():
            return canonical_json(_plain(value))
        case _:
            return value
