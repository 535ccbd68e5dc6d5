"""Serialization of documents for the store."""

import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from handrail.kernel.serialization import as_json, limit_json, pack, to_plain, unpack, unpack_json

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=200,
)


@given(PLAIN)
def test_plain_values_are_unchanged(value: Any) -> None:
    """Values that JSON can represent are unpacked unchanged, short or long."""
    assert unpack(pack(value)) == value


@given(PLAIN)
def test_packed_is_the_same_json(value: Any) -> None:
    """Compression does not change the JSON."""
    assert unpack_json(pack(value)) == as_json(value)


def test_long_documents_are_compressed() -> None:
    """A long repetitive text takes a fraction of its length."""
    assert len(pack("again " * 1_000)) < 200


@given(st.text())
def test_any_text_is_kept(text: str) -> None:
    """Half a character becomes a question mark, and every other character stays."""
    assert json.loads(as_json({"t": text})) == {"t": text.encode("utf-8", "replace").decode()}


def test_what_json_lacks_is_written_by_its_text() -> None:
    """Bytes are base 64, unknown objects their text, and a value that holds itself does not end the run."""
    circle: list[Any] = []
    circle.append(circle)
    assert unpack(pack({"b": b"\xff\x00", "c": 1j, "circle": circle})) == {
        "b": "_wA=",
        "c": "1j",
        "circle": ["[[...]]"],
    }


class Broken:
    """Its text cannot be made."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Line(BaseModel):
    """A line of an order."""

    product: str
    tags: set[str] = {"b", "a"}


@dataclass
class Order:
    """An order."""

    lines: list[Line]
    lock: Any = None


@pytest.mark.parametrize(
    ("value", "plain", "complete"),
    [
        (Order([Line(product="tea")]), {"lines": [{"product": "tea", "tags": ["a", "b"]}], "lock": None}, True),
        ({1: (datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.10"))}, {"1": ["2026-01-02T00:00:00Z", "1.10"]}, True),
        ({"b": b"\xff"}, {"b": "_w=="}, True),
        ([float("inf"), "half \ud83d"], [float("inf"), "half \ud83d"], False),
        ({"broken": Broken()}, {"broken": "<Broken>"}, False),
        ([{"n": (n for n in range(3))}], [{"n": [0, 1, 2]}], False),
    ],
)
def test_plain_values(value: Any, plain: Any, complete: bool) -> None:
    """Models, dataclasses and sets become plain values; what has no form in JSON is its text, and is noted."""
    assert to_plain(value) == (plain, complete)


@pytest.mark.parametrize("value", [Order([], lock=threading.Lock()), [Broken()], {"deep": None}, Broken, {Broken(): 1}])
def test_anything_can_be_stored(value: Any) -> None:
    """No value ends a run because it cannot be written, however deep it is and whatever its text does."""
    nested = [value]
    for _ in range(5_000):
        nested = [nested]
    assert unpack(pack(value)) is not None
    assert unpack(pack(nested)) is not None


def test_a_large_value_is_cut() -> None:
    """A value with more bytes of JSON than are kept becomes a text that says so; a smaller one is unchanged."""
    assert limit_json({"a": [1, "é"]}, 20) == {"a": [1, "é"]}
    assert limit_json(["é" * 10], 7) == '["éé [cut: it had 24 bytes of JSON]'
