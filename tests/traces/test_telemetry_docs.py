"""docs/telemetry.md agrees with the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from handrail.traces import attribute_values, semconv
from handrail.traces import payloads as limits
from handrail.traces.export.exporter import CLOSING_SECONDS, MAX_QUEUED_SPANS
from handrail.traces.otlp import validation
from handrail.traces.recorder.redaction import build_redaction
from tests.traces.samples import span

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
_USAGE = "gen_ai.usage."


def rows(heading: str) -> list[list[str]]:
    """The cells of the table with this first heading, without its first two lines."""
    table = PAGE.split(f"| {heading} |", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def attributes_of(name: str) -> list[str]:
    """The attributes for a name on the page: token counts have three."""
    key = name.removeprefix(_USAGE)
    if name == key or "." in key or key == "cost":
        return [name]
    return [name, f"{_USAGE}details.{key}", f"{semconv.USAGE_DETAILS}.{key}"]


def test_every_name_that_is_read_is_on_the_page() -> None:
    """The table of fields has the attributes of the code, and for each field the same first one."""
    listed = {field: quoted(cell) for field, cell in rows("field")}
    assert {field: {name_ for name in names for name_ in attributes_of(name)} for field, names in listed.items()} == {
        field: set(names) for field, names in semconv.FIELD_ATTRIBUTES.items()
    }
    assert {field: names[0] for field, names in listed.items()} == {
        field: names[0] for field, names in semconv.FIELD_ATTRIBUTES.items()
    }


def test_every_kind_that_is_read_is_on_the_page() -> None:
    """The table of kinds has each dialect's values."""
    documented = {
        name: {word: kind for kind, *cells in rows("kind") for word in quoted(cells[column])}
        for column, name in enumerate(semconv.KIND_VALUES)
    }
    assert documented == semconv.KIND_VALUES


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("a request, decompressed", f"{validation.MAX_REQUEST_BYTES >> 20} MiB"),
        ("spans in a request", f"{validation.MAX_REQUEST_SPANS:,}"),
        ("one span", f"{validation.MAX_SPAN_BYTES >> 20} MiB"),
        ("an identifier: user, model, name", f"{attribute_values.MAX_NAME_CHARS} characters"),
        ("one attribute", f"{limits.MAX_ATTRIBUTE_CHARS:,} characters"),
        ("attributes of a span", f"{limits.MAX_ATTRIBUTES}"),
        ("one text of the content", f"{limits.MAX_TEXT_CHARS:,} characters"),
        ("nested content", f"{limits.MAX_DEPTH} levels"),
    ],
)
def test_limits(limit: str, value: str) -> None:
    """The limits on the page are those of the code."""
    assert [documented for name, documented, _ in rows("limit") if name == limit] == [value]


def test_numbers_of_the_export() -> None:
    """The size of the queue and the time for closing are those of the code."""
    assert f"Up to {MAX_QUEUED_SPANS:,} spans" in PAGE
    assert CLOSING_SECONDS == 3


def test_the_redaction_example() -> None:
    """The example removes addresses from attributes and content at any depth."""
    code = PAGE.split("## Redaction")[1].split("```python\n")[1].split("```")[0]
    module: dict[str, Any] = {}
    exec(code, module)
    redacted = build_redaction(module["redact"])(
        span(attributes={"to": "ann@example.com", "n": 1}, payload={"messages": [{"text": "I am ann@example.com."}]})
    )
    assert redacted.attributes == {"to": "(mail)", "n": 1}
    assert redacted.payload == {"messages": [{"text": "I am (mail)"}]}
