"""Column types load the values that were stored, and rows become the original dataclasses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    select,
    type_coerce,
)
from sqlalchemy.types import LargeBinary, Text

from handrail.kernel.db.columns import Json, Money, Packed, Timestamp
from handrail.kernel.db.engine import store_url as parsed
from handrail.kernel.db.queries import interval_start
from handrail.kernel.db.rows import from_row, to_row
from handrail.kernel.money import ZERO, NanoUsd
from handrail.kernel.serialization import canonical_json, pack, unpack_json

things = Table(
    "things",
    MetaData(),
    Column("thing_id", Integer, primary_key=True),
    Column("user_id", String, key="user"),
    Column("at", Timestamp),
    Column("cost", Money),
    Column("document", Packed),
    Column("labels", Json),
    Column("order", Json),
    Column("details", Json),
    Column("only_in_the_table", String),
)


@dataclass(frozen=True)
class Thing:
    """A field for each column type."""

    thing_id: int
    user: str
    at: datetime | None
    cost: NanoUsd | None
    document: Any
    labels: frozenset[str]
    order: tuple[int, ...]
    details: Mapping[str, Any]
    only_in_the_class: int = 5


TEXT = st.text(st.characters(), max_size=20)
"""Includes lone surrogates and null characters."""
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ZONES = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
# Nanoseconds since 1970 fit into 64 bits until the year 2262.
TIMES = st.datetimes(datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2250-01-01"), timezones=ZONES)
AMOUNTS = st.integers(-(2**63), 2**63 - 1).map(NanoUsd)
THINGS = st.builds(
    Thing,
    st.just(1),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.none() | TIMES,
    st.none() | AMOUNTS,
    DOCUMENTS,
    st.frozensets(TEXT, max_size=4),
    st.lists(st.integers(-9, 9), max_size=4).map(tuple),
    st.dictionaries(TEXT, DOCUMENTS, max_size=3),
)


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """An engine of a store with only the table above."""
    engine = create_engine(parsed(store_url, Path()))
    things.metadata.create_all(engine)
    yield engine
    engine.dispose()


many_examples = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def _store(conn: Connection, row: dict[str, Any]) -> None:
    conn.execute(delete(things))
    conn.execute(things.insert(), row)


def _without_surrogates(value: Any) -> Any:
    """A document as `pack` writes it: lone surrogates become question marks."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return (
        {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )


@given(thing=THINGS)
@many_examples
def test_a_dataclass_is_loaded_as_stored(engine: Engine, thing: Thing) -> None:
    """A dataclass is loaded equal to the stored one, with its times in UTC."""
    with engine.begin() as conn:
        _store(conn, to_row(thing, things))
        row = conn.execute(select(things)).one()
    stored = from_row(Thing, row)
    assert stored == replace(thing, document=_without_surrogates(thing.document))
    assert stored.at is None or stored.at.tzinfo is UTC


@given(thing=THINGS)
@many_examples
def test_documents_may_be_serialized_beforehand(engine: Engine, thing: Thing) -> None:
    """A row with documents that are serialized already is the same as one with plain documents."""
    plain = {"thing_id": 1, "document": thing.document, "details": thing.details}
    written = {"thing_id": 1, "document": pack(thing.document), "details": canonical_json(thing.details)}
    stored = select(type_coerce(things.c.document, LargeBinary), type_coerce(things.c.details, Text))
    with engine.begin() as conn:
        _store(conn, plain)
        before = conn.execute(stored).one()
        _store(conn, written)
        after = conn.execute(stored).one()
    assert thing.document is None or unpack_json(before[0]) == unpack_json(after[0])
    assert before[1] == after[1]


@given(one=TIMES, other=TIMES, length=st.timedeltas(timedelta(seconds=1), timedelta(days=400)))
@many_examples
def test_times_compare_and_group_in_sql(engine: Engine, one: datetime, other: datetime, length: timedelta) -> None:
    """SQL compares times in any zones like Python, and divides time into intervals from 1970 in UTC."""
    one = max(one, datetime(1970, 1, 1, tzinfo=UTC))
    with engine.begin() as conn:
        _store(conn, {"thing_id": 1, "at": one})
        earlier = conn.execute(select(func.count()).where(things.c.at < other)).scalar_one()
        start = conn.execute(select(type_coerce(interval_start(things.c.at, length), Timestamp))).scalar_one()
    assert earlier == (one < other)
    assert start <= one < start + length
    assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % length == timedelta()


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    """A naive datetime is a programming error and is not stored."""
    with engine.begin() as conn, pytest.raises(Exception, match="offset-naive and offset-aware"):
        _store(conn, {"thing_id": 1, "at": datetime(2026, 1, 1)})  # noqa: DTZ001 - the subject of the test


def test_arguments_replace_fields(engine: Engine) -> None:
    """An argument replaces the field or column of its name."""
    thing = Thing(1, "u", None, ZERO, None, frozenset(), (), {})
    with engine.begin() as conn:
        _store(conn, to_row(thing, things, user="v", only_in_the_table="t"))
        row = conn.execute(select(things)).one()
    assert (row.only_in_the_table, from_row(Thing, row).user) == ("t", "v")
    assert from_row(Thing, row, only_in_the_class=7).only_in_the_class == 7
