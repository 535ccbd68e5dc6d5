"""Serialization of documents for the store."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handrail.kernel.serialization import as_json, pack, unpack, unpack_json

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
    assert unpack(pack({"b": b"\xff\x00", "c": 1j, "circle": circle})) == {"b": "_wA=", "c": "1j", "circle": "[[...]]"}
