"""Values as people read them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from handrail.kernel.text import format_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("café", '"café"'),
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        (datetime(2026, 1, 1, tzinfo=UTC), '"2026-01-01T00:00:00Z"'),
        ((1, 2), "[1, 2]"),
        ({"\ud800": "\ud800"}, '{"\ud800": "\ud800"}'),
        (b"\xff", "\"b'\\\\xff'\""),
        (object, "\"<class 'object'>\""),
    ],
)
def test_any_value_as_json(value: Any, text: str) -> None:
    """JSON on one line with every character as it is; what JSON has no form for is its text."""
    assert format_json(value) == text
