"""Files of other tools as rows, one for each case, with the place that a complaint names."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from handrail.evals.eval_set.yaml_reader import read_text, read_yaml
from handrail.kernel.errors import BadInput

Format = Literal["pydantic-evals", "promptfoo", "csv", "jsonl"]

_OWN = {name: name for name in ("id", "input", "expect", "source", "date", "tags")}
_METADATA = {name: f"metadata.{name}" for name in ("source", "date", "tags")}
COLUMNS: dict[Format, dict[str, str]] = {
    "pydantic-evals": {"id": "name", "input": "inputs", "expect": "expected_output", **_METADATA},
    "promptfoo": {"id": "description", "input": "asked", "expect": "equals", **_METADATA},
    "csv": _OWN,
    "jsonl": _OWN,
}
"""Where the fields of a case stand in a row of each format, unless the user maps them otherwise."""

# What promptfoo's column __expected says before a colon; without one of them, the whole cell is the expected output.
_ASSERTION = re.compile(
    r"(?s)(?P<type>(?:not-)?(?:i?contains(?:-any|-all|-json)?|equals|i?starts-with|regex|is-[a-z-]+|similar|grade|"
    r"llm-rubric|javascript|fn|eval|python|cost|latency|levenshtein|classifier|webhook|factuality|answer-relevance|"
    r"model-graded-[a-z]+|rouge-n|bleu|perplexity))(?:\([^)]*\))?(?::\s*(?P<value>.*))?"
)


@dataclass(frozen=True)
class Row:
    """A case as its file has it."""

    where: str
    value: Mapping[str, Any]


def read_rows(path: Path, format_: Format, left_out: Counter[str]) -> Iterator[Row]:
    """The rows of a file. What has no place in a row is counted in `left_out`. Raises BadInput, with the line."""
    match format_:
        case "pydantic-evals":
            return _pydantic_evals(path, left_out)
        case "promptfoo":
            rows = _promptfoo_csv(path) if path.suffix.lower() == ".csv" else _promptfoo(path, left_out)
            return (_with_equals(row, left_out) for row in rows)
        case "csv":
            return _csv(path)
        case "jsonl":
            return _jsonl(path)


def _pydantic_evals(path: Path, left_out: Counter[str]) -> Iterator[Row]:
    for where, case in _listed(path, "cases", left_out, ("evaluators", "report_evaluators")):
        left_out["evaluators of cases"] += len(case.get("evaluators") or ())
        yield Row(
            where, {name: value for name, value in case.items() if value is not None or name == "expected_output"}
        )


def _promptfoo(path: Path, left_out: Counter[str]) -> Iterator[Row]:
    for where, test in _listed(path, "tests", left_out, ("defaultTest", "scenarios")):
        asserts = test.get("assert") or ()
        yield Row(where, {**test, "assert": [each for each in asserts if isinstance(each, Mapping)]})


def _promptfoo_csv(path: Path) -> Iterator[Row]:
    for row in _csv(path):
        test: dict[str, Any] = {"vars": {}, "assert": [], "metadata": {}}
        for name, cell in row.value.items():
            if name == "__description":
                test["description"] = cell
            elif name.startswith("__metadata:"):
                test["metadata"][name.removeprefix("__metadata:").removesuffix("[]")] = cell
            elif re.fullmatch(r"__expected\d*", name) and cell:
                said = _ASSERTION.fullmatch(cell)
                kind, value = (said["type"], said["value"]) if said else ("equals", cell)
                test["assert"].append({"type": kind, "value": value})
            elif not name.startswith("__"):
                test["vars"][name] = cell
        yield Row(row.where, test)


def _with_equals(row: Row, left_out: Counter[str]) -> Row:
    """A test with what its output has to equal; other assertions cannot be said as an expectation."""
    test = dict(row.value)
    for each in test.get("assert", ()):
        if each.get("type") == "equals" and "equals" not in test:
            test["equals"] = each.get("value")
        else:
            left_out[f"assertions of type {each.get('type')}"] += 1
    given = test.get("vars") or {}
    test["asked"] = next(iter(given.values())) if isinstance(given, Mapping) and len(given) == 1 else given
    return Row(row.where, test)


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise BadInput(f"{path}:1: a column stands twice in the header; give each its own name")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    raise BadInput(
                        f"{path}:{line}: {len(cells)} cells, and the header has {len(header)}; correct the row"
                    )
                yield Row(f"{path}:{line}", dict(zip(header, cells, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not valid CSV ({error}); correct that row") from error


def _jsonl(path: Path) -> Iterator[Row]:
    # By "\n" only: a text in JSON may hold other characters that end a line elsewhere.
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not valid JSON ({error}); correct that line") from error
        if not isinstance(value, dict):
            raise BadInput(f"{path}:{number}: {type(value).__name__} is no case; write one object on each line")
        yield Row(f"{path}:{number}", value)


def _listed(
    path: Path, key: str, left_out: Counter[str], beside: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings of the list under `key`, or of the file where that is a list itself, each with its place."""
    if path.suffix.lower() == ".json":
        try:
            value: Any = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: not valid JSON ({error}); correct it") from error
        places = None
    else:
        document = read_yaml(path)
        value, places = document.value, document
    inside = isinstance(value, dict)
    cases = value.get(key) if inside else value
    if not isinstance(cases, list):
        raise BadInput(f"{path}: no list of {key}; is it a file of another tool? --format says what it is")
    for name in beside if inside else ():
        left_out[name] += len(value.get(name) or ())
    for index, case in enumerate(cases):
        where = (
            f"{path}:{places.line((key, index) if inside else (index,))}" if places else f"{path}: number {index + 1}"
        )
        if isinstance(case, str):
            left_out["references to other files"] += 1
        elif isinstance(case, dict):
            yield where, case
        else:
            raise BadInput(f"{where}: {type(case).__name__} is no case; a mapping is")
