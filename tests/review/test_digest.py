"""A digest identifies a tool and its exact arguments."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.serialization import canonical_json
from handrail.review.approvals.model import digest

TEXT = st.text(st.characters(), max_size=5)
"""Includes lone surrogates."""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
SCHEMA = "5c" * 32
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same, including types; in Python 1, 1.0 and True are equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS)
def test_the_order_of_keys_does_not_matter(arguments: dict[str, Any]) -> None:
    """The same arguments with their keys in another order, at every depth, have the same digest."""
    assert digest("refund", arguments, SCHEMA) == digest("refund", _reversed(arguments), SCHEMA)


@given(OBJECTS, OBJECTS)
def test_equal_digests_mean_equal_arguments(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two arguments have the same digest if and only if they are the same JSON."""
    assert (digest("refund", one, SCHEMA) == digest("refund", other, SCHEMA)) is _same(one, other)


@given(OBJECTS, TEXT, JSON, JSON)
def test_a_changed_argument_changes_the_digest(rest: dict[str, Any], name: str, one: Any, other: Any) -> None:
    """Changing one argument changes the digest."""
    assert (digest("refund", {**rest, name: one}, SCHEMA) == digest("refund", {**rest, name: other}, SCHEMA)) is _same(
        one, other
    )


@given(OBJECTS)
def test_canonical_json(arguments: dict[str, Any]) -> None:
    """Canonical JSON is parsed to the original arguments, and is ASCII text that every store can hold."""
    text = canonical_json(arguments)
    assert _same(json.loads(text), arguments)
    assert text.isascii()
    assert text.isprintable()


def test_similar_values_have_different_digests() -> None:
    """Values that are equal in Python or look alike have different digests."""
    values = [1, 1.0, "1", True, None, [1], {"1": 1}, "", 0, 0.0, -0.0, False, [], {}, math.nan, math.inf, -math.inf]
    assert len({digest("pay", {"amount": value}, SCHEMA) for value in values}) == len(values)


@given(OBJECTS, TEXT, TEXT)
def test_the_tool_is_part_of_the_digest(arguments: dict[str, Any], one: str, other: str) -> None:
    """The same arguments for another tool have another digest."""
    assert (digest(one, arguments, SCHEMA) == digest(other, arguments, SCHEMA)) is (one == other)


@given(OBJECTS)
def test_the_schema_is_part_of_the_digest(arguments: dict[str, Any]) -> None:
    """The same arguments of a tool whose schema has changed have another digest."""
    assert digest("refund", arguments, SCHEMA) != digest("refund", arguments, "00" * 32)
