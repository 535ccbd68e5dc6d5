"""Import of cases from other tools' files, and export of an eval set for other tools.

Imported are pydantic-evals' YAML and JSON, promptfoo's tests (YAML and CSV), CSV and JSON Lines. Exported are
pydantic-evals' YAML and JSON Lines; importing an export gives the same cases. What cannot be imported is counted.
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

from .readers import COLUMNS, Format, SourceRow, read_rows

OUTPUT_FIELD = "output"
"""The field of a case for an expected output that is a single value without a name."""

_MISSING = object()
_QUOTED = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SUFFIXES: dict[str, Format] = {
    ".yaml": "pydantic-evals",
    ".yml": "pydantic-evals",
    ".json": "pydantic-evals",
    ".csv": "csv",
    ".jsonl": "jsonl",
}


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How rows become cases.

    `columns` maps a case's field (`input`, `id`, `expect.order`, ...) to a column or a dotted path into the row; with
    the suffix `:json`, a text there is parsed as JSON. `source` and `date` are for rows that have none of their own.
    """

    source: str
    date: dt.date
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ImportedCases:
    """The imported cases, and how much could not be imported, by kind."""

    cases: tuple[Case, ...]
    left_out: Mapping[str, int]


def read_cases(path: Path, options: ImportOptions, format_: Format | None = None) -> ImportedCases:
    """Reads the cases of another tool's file.

    Args:
        path: The file.
        options: How rows become cases.
        format_: The format; derived from the file's suffix when None.

    Raises:
        BadInput: The format is unknown, the file is not valid, or it has no case; names the line.
    """
    chosen = format_ or _SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise BadInput(f"{path}: {path.suffix or 'no suffix'} is not a known suffix; give the format with --format")
    left_out: Counter[str] = Counter()
    columns = {**COLUMNS[chosen], **options.columns}
    cases: list[Case] = []
    used_ids: set[str] = set()
    for row in read_rows(path, chosen, left_out):
        expect = _read_expectations(row, columns)
        if not expect:
            left_out["cases that expect nothing"] += 1
            continue
        cases.append(_to_case(row, columns, options, expect, used_ids))
        used_ids.add(cases[-1].id)
    if not cases:
        reason = ", ".join(f"{kind}: {count}" for kind, count in left_out.items()) or "it is empty"
        raise BadInput(f"{path}: no cases, read as {chosen} ({reason}); give the answer with --map expect.FIELD=COLUMN")
    return ImportedCases(cases=tuple(cases), left_out=+left_out)


def to_pydantic_evals(eval_set: EvalSet) -> str:
    """The eval set as a pydantic-evals dataset in YAML; source, date and tags become metadata."""
    cases = [
        {
            "name": case.id,
            "inputs": case.input,
            "metadata": {"source": case.source, "date": case.date.isoformat(), "tags": list(case.tags)},
            "expected_output": case.expect,
        }
        for case in eval_set.cases
    ]
    dataset = {"name": eval_set.name, "cases": cases}
    return yaml.dump(dataset, Dumper=_ReadableDumper, allow_unicode=True, sort_keys=False, width=1_000)


def to_jsonl(eval_set: EvalSet) -> str:
    """The cases as JSON Lines."""
    rows = (case.model_dump(mode="json", exclude={"input_file"}) for case in eval_set.cases)
    # In ASCII, since a text may contain characters that end a line in other programs.
    return "".join(json.dumps(row) + "\n" for row in rows)


def value_at(row: Any, path: str) -> Any:
    """The value of a row at a column or dotted path, optionally parsed as JSON; `_MISSING` when there is none."""
    location, _, parse_json = path.rpartition(":") if path.endswith(":json") else (path, "", "")
    if isinstance(row, Mapping) and location in row:
        value = row[location]
    else:
        value = row
        for part in location.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return _MISSING
            value = value[part]
    return json.loads(value) if parse_json and isinstance(value, str) and value.strip() else value


def slug(text: str) -> str:
    """The text as a case's id; empty when none of its characters can be used."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:80].strip("-")


class _ReadableDumper(yaml.SafeDumper):
    """Writes texts of several lines as block scalars, and no aliases, which hide content from readers."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: _ReadableDumper, text: str) -> yaml.Node:
    # In other styles, PyYAML does not read some unusual line endings back as they were.
    style = '"' if _QUOTED.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_ReadableDumper.add_representer(str, _represent_text)


def _read_expectations(row: SourceRow, columns: Mapping[str, str]) -> dict[str, Any]:
    output = _read(row, "expect", columns)
    expect = dict(output) if isinstance(output, Mapping) else {} if _is_empty(output) else {OUTPUT_FIELD: output}
    for field in columns:
        if field.startswith("expect.") and not _is_empty(value := _read(row, field, columns)):
            expect[field.removeprefix("expect.")] = value
    # A table may have columns such as expect.order that need no mapping.
    for name, value in row.value.items():
        if name.startswith("expect.") and name not in columns and not _is_empty(value):
            expect[name.removeprefix("expect.")] = value
    return expect


def _is_empty(value: Any) -> bool:
    return value is _MISSING or value == ""


def _to_case(
    row: SourceRow, columns: Mapping[str, str], options: ImportOptions, expect: dict[str, Any], used_ids: set[str]
) -> Case:
    case_input, name, source, date, tags = (
        _read(row, field, columns) for field in ("input", "id", "source", "date", "tags")
    )
    if case_input is _MISSING:
        raise BadInput(f"{row.where}: no input at {columns['input']!r}; say where it is with --map input=COLUMN")
    base = (slug(str(name)) if not _is_empty(name) and name is not None else "") or f"case-{len(used_ids) + 1}"
    ids = (base if n == 1 else f"{base[:76]}-{n}" for n in count(1))
    tag_list = re.split(r"[,;]", tags) if isinstance(tags, str) else tags
    try:
        return Case(
            id=next(case_id for case_id in ids if case_id not in used_ids),
            input=case_input if isinstance(case_input, str) else json.dumps(case_input, ensure_ascii=False),
            expect=expect,
            source=" ".join(str(source).split()) if source not in (_MISSING, "", None) else options.source,
            date=date if date not in (_MISSING, "", None) else options.date,
            tags=tuple(str(tag).strip() for tag in tag_list if str(tag).strip()) if isinstance(tag_list, list) else (),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise BadInput(f"{row.where}: {field}: {problem['msg']}; correct it, or map another column") from error


def _read(row: SourceRow, field: str, columns: Mapping[str, str]) -> Any:
    try:
        return value_at(row.value, columns[field])
    except ValueError as error:
        raise BadInput(f"{row.where}: {columns[field]}: not JSON ({error}); correct it, or leave :json out") from error
