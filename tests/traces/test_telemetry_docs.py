"""docs/telemetry.md says what the code does."""

import re
from pathlib import Path
from typing import Any

import pytest

from handrail.traces import normalize, semconv
from handrail.traces import payloads as limits
from handrail.traces.export.exporter import CLOSING_SECONDS, QUEUE
from handrail.traces.otlp import validation
from handrail.traces.recorder.redaction import redacting
from tests.traces.samples import span

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
_USAGE = "gen_ai.usage."


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading is this, without its two first lines."""
    table = PAGE.split(f"| {heading} |", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def as_read(name: str) -> list[str]:
    """What a name on the page stands for: a count of tokens has three spellings."""
    key = name.removeprefix(_USAGE)
    if name == key or "." in key or key == "cost":
        return [name]
    return [name, f"{_USAGE}details.{key}", f"{semconv.USAGE_DETAILS}.{key}"]


def test_every_name_that_is_read_is_on_the_page() -> None:
    """The table of fields has the names of the code, each field's most trusted first."""
    listed = {field: quoted(cell) for field, cell in rows("field")}
    assert {field: {each for name in found for each in as_read(name)} for field, found in listed.items()} == {
        field: set(found) for field, found in semconv.NAMES.items()
    }
    assert {field: found[0] for field, found in listed.items()} == {
        field: found[0] for field, found in semconv.NAMES.items()
    }


def test_every_kind_that_is_read_is_on_the_page() -> None:
    """The table of kinds has each dialect's words."""
    told = {
        name: {word: kind for kind, *cells in rows("kind") for word in quoted(cells[place])}
        for place, name in enumerate(semconv.KINDS)
    }
    assert told == semconv.KINDS


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("a request, unpacked", f"{validation.MOST_BYTES >> 20} MiB"),
        ("spans of a request", f"{validation.MOST_SPANS:,}"),
        ("one span", f"{validation.MOST_SPAN_BYTES >> 20} MiB"),
        ("an identifier: user, model, name", f"{normalize.LONGEST_NAME} characters"),
        ("one attribute", f"{limits.LONG:,} characters"),
        ("attributes of a span", f"{limits.MANY}"),
        ("one text of the content", f"{limits.LONGEST:,} characters"),
        ("content nested in itself", f"{limits.DEEPEST} levels"),
    ],
)
def test_limits(limit: str, value: str) -> None:
    """The limits on the page are those of the code."""
    assert [found for name, found, _ in rows("limit") if name == limit] == [value]


def test_numbers_of_the_export() -> None:
    """How many spans may wait, and for how long, is as the page says."""
    assert f"Up to {QUEUE:,} spans" in PAGE
    assert CLOSING_SECONDS == 3


def test_the_pages_redaction() -> None:
    """The example takes addresses out of attributes and content, however deep."""
    code = PAGE.split("## Taking out what must not be kept")[1].split("```python\n")[1].split("```")[0]
    module: dict[str, Any] = {}
    exec(code, module)
    found = redacting(module["redact"])(
        span(attributes={"to": "ann@example.com", "n": 1}, payload={"messages": [{"text": "I am ann@example.com."}]})
    )
    assert found.attributes == {"to": "(mail)", "n": 1}
    assert found.payload == {"messages": [{"text": "I am (mail)"}]}
