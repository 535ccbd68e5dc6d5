"""Sets of other tools as cases of ours, and ours as theirs.

Read are pydantic-evals' YAML and JSON, promptfoo's tests (YAML and CSV), CSV and JSON Lines. Written are the YAML of
pydantic-evals and JSON Lines, both of which read back as what they were. What has no place here is counted.
"""

import datetime as dt
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from handrail.evals.eval_set.model import Case, EvalSet
from handrail.kernel.errors import BadInput

from .readers import COLUMNS, Format, Row, read_rows

ANSWER = "output"
"""The field of a case whose expectation is a single value without a name."""

_MISSING = object()
_RARE = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SUFFIXES: dict[str, Format] = {
    ".yaml": "pydantic-evals",
    ".yml": "pydantic-evals",
    ".json": "pydantic-evals",
    ".csv": "csv",
    ".jsonl": "jsonl",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows become cases.

    `columns` maps a case's field (`input`, `id`, `expect.order`, ...) to where it stands in a row: a column, or a path
    with dots in it; with `:json` behind it, a text is read as JSON. `source` and `date` are for rows without their own.
    """

    source: str
    date: dt.date
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Cases that were read, and how many of what had no place in them."""

    cases: tuple[Case, ...]
    left_out: Mapping[str, int]


def read_cases(path: Path, layout: Layout, format_: Format | None = None) -> Imported:
    """The cases of a file in `format_`, else in that of its suffix. Raises BadInput, with the place, for no case."""
    chosen = format_ or _SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise BadInput(f"{path}: {path.suffix or 'no suffix'} is no format that is known; say it with --format")
    left_out: Counter[str] = Counter()
    columns = {**COLUMNS[chosen], **layout.columns}
    cases: list[Case] = []
    taken: set[str] = set()
    for row in read_rows(path, chosen, left_out):
        expect = _expected(row, columns)
        if not expect:
            left_out["cases that expect nothing"] += 1
            continue
        cases.append(_case(row, columns, layout, expect, taken))
        taken.add(cases[-1].id)
    if not cases:
        found = ", ".join(f"{what}: {number}" for what, number in left_out.items()) or "it is empty"
        raise BadInput(f"{path}: no case in it as {chosen} ({found}); --map expect.FIELD=COLUMN says what is right")
    return Imported(cases=tuple(cases), left_out=+left_out)


def to_pydantic_evals(loaded: EvalSet) -> str:
    """The set as a pydantic-evals dataset in YAML; source, date and tags are the metadata."""
    cases = [
        {
            "name": case.id,
            "inputs": case.input,
            "metadata": {"source": case.source, "date": case.date.isoformat(), "tags": list(case.tags)},
            "expected_output": case.expect,
        }
        for case in loaded.cases
    ]
    found = {"name": loaded.name, "cases": cases}
    return yaml.dump(found, Dumper=_Plain, allow_unicode=True, sort_keys=False, width=1_000)


def to_jsonl(loaded: EvalSet) -> str:
    """The cases, one JSON object on a line each."""
    rows = (case.model_dump(mode="json", exclude={"input_file"}) for case in loaded.cases)
    # Escaped: some of the characters that end a line in other programs may stand in a text.
    return "".join(json.dumps(row) + "\n" for row in rows)


def pick(value: Any, path: str) -> Any:
    """What stands in a row under a column, or along a path with dots; a mark of its own where nothing does."""
    place, _, kind = path.rpartition(":") if path.endswith(":json") else (path, "", "")
    if isinstance(value, Mapping) and place in value:
        found = value[place]
    else:
        found = value
        for part in place.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return _MISSING
            found = found[part]
    return json.loads(found) if kind and isinstance(found, str) and found.strip() else found


def slug(text: str) -> str:
    """The text as a case's id, empty where nothing of it can be."""
    ascii_ = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-")[:80].strip("-")


class _Plain(yaml.SafeDumper):
    """Writes every value out, since an alias hides content from readers, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Plain, text: str) -> yaml.Node:
    # Left to itself PyYAML writes some of the rarer line ends so that they read back as others.
    style = '"' if _RARE.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Plain.add_representer(str, _text)


def _expected(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    whole = _read(row, "expect", columns)
    expect = dict(whole) if isinstance(whole, Mapping) else {} if _is_nothing(whole) else {ANSWER: whole}
    for field in columns:
        if field.startswith("expect.") and not _is_nothing(found := _read(row, field, columns)):
            expect[field.removeprefix("expect.")] = found
    # A table has columns such as expect.order of its own.
    for name, found in row.value.items():
        if name.startswith("expect.") and name not in columns and not _is_nothing(found):
            expect[name.removeprefix("expect.")] = found
    return expect


def _is_nothing(found: Any) -> bool:
    return found is _MISSING or found == ""


def _case(row: Row, columns: Mapping[str, str], layout: Layout, expect: dict[str, Any], taken: set[str]) -> Case:
    asked, name, source, date, tags = (
        _read(row, field, columns) for field in ("input", "id", "source", "date", "tags")
    )
    if asked is _MISSING:
        raise BadInput(f"{row.where}: no input at {columns['input']!r}; --map input=COLUMN says where it is")
    first = (slug(str(name)) if not _is_nothing(name) and name is not None else "") or f"case-{len(taken) + 1}"
    names = (first if n == 1 else f"{first[:76]}-{n}" for n in count(1))
    split = re.split(r"[,;]", tags) if isinstance(tags, str) else tags
    try:
        return Case(
            id=next(each for each in names if each not in taken),
            input=asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False),
            expect=expect,
            source=" ".join(str(source).split()) if source not in (_MISSING, "", None) else layout.source,
            date=date if date not in (_MISSING, "", None) else layout.date,
            tags=tuple(str(each).strip() for each in split if str(each).strip()) if isinstance(split, list) else (),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise BadInput(f"{row.where}: {field}: {problem['msg']}; correct it, or map another column") from error


def _read(row: Row, field: str, columns: Mapping[str, str]) -> Any:
    try:
        return pick(row.value, columns[field])
    except ValueError as error:
        raise BadInput(f"{row.where}: {columns[field]}: not JSON ({error}); correct it, or leave :json out") from error
