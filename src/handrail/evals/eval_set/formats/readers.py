"""Reads files of other tools as rows, one per case, each with its file and line for error messages."""

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

_PROMPTFOO_INPUT = "vars as input"  # not a key that a test of promptfoo can have
_OWN = {name: name for name in ("id", "input", "expect", "source", "date", "tags")}
_METADATA = {name: f"metadata.{name}" for name in ("source", "date", "tags")}
COLUMNS: dict[Format, dict[str, str]] = {
    "pydantic-evals": {"id": "name", "input": "inputs", "expect": "expected_output", **_METADATA},
    "promptfoo": {"id": "description", "input": _PROMPTFOO_INPUT, "expect": "equals", **_METADATA},
    "csv": _OWN,
    "jsonl": _OWN,
}
"""Where a row of each format has the fields of a case, unless the user maps them otherwise."""

# The assertion types a cell of promptfoo's column __expected may start with; otherwise it is the expected output.
_ASSERTION = re.compile(
    r"(?s)(?P<type>(?:not-)?(?:i?contains(?:-any|-all|-json)?|equals|i?starts-with|regex|is-[a-z-]+|similar|grade|"
    r"llm-rubric|javascript|fn|eval|python|cost|latency|levenshtein|classifier|webhook|factuality|answer-relevance|"
    r"model-graded-[a-z]+|rouge-n|bleu|perplexity))(?:\([^)]*\))?(?::\s*(?P<value>.*))?"
)


@dataclass(frozen=True)
class SourceRow:
    """A case as it is in its file; `where` is the file and line."""

    where: str
    value: Mapping[str, Any]


def read_rows(path: Path, format_: Format, left_out: Counter[str]) -> Iterator[SourceRow]:
    """The rows of a file; counts what cannot be imported in `left_out`. Raises BadInput, naming the line."""
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


def _pydantic_evals(path: Path, left_out: Counter[str]) -> Iterator[SourceRow]:
    for where, case in _list_items(path, "cases", left_out, ("evaluators", "report_evaluators")):
        left_out["evaluators of cases"] += len(case.get("evaluators") or ())
        yield SourceRow(
            where, {name: value for name, value in case.items() if value is not None or name == "expected_output"}
        )


def _promptfoo(path: Path, left_out: Counter[str]) -> Iterator[SourceRow]:
    for where, test in _list_items(path, "tests", left_out, ("defaultTest", "scenarios")):
        asserts = test.get("assert") or ()
        yield SourceRow(
            where, {**test, "assert": [assertion for assertion in asserts if isinstance(assertion, Mapping)]}
        )


def _promptfoo_csv(path: Path) -> Iterator[SourceRow]:
    for row in _csv(path):
        test: dict[str, Any] = {"vars": {}, "assert": [], "metadata": {}}
        for name, cell in row.value.items():
            if name == "__description":
                test["description"] = cell
            elif name.startswith("__metadata:"):
                test["metadata"][name.removeprefix("__metadata:").removesuffix("[]")] = cell
            elif re.fullmatch(r"__expected\d*", name) and cell:
                match = _ASSERTION.fullmatch(cell)
                kind, value = (match["type"], match["value"]) if match else ("equals", cell)
                test["assert"].append({"type": kind, "value": value})
            elif not name.startswith("__"):
                test["vars"][name] = cell
        yield SourceRow(row.where, test)


def _with_equals(row: SourceRow, left_out: Counter[str]) -> SourceRow:
    """A test with the output it has to equal; other assertions cannot be expressed as an expectation."""
    test = dict(row.value)
    for assertion in test.get("assert", ()):
        if assertion.get("type") == "equals" and "equals" not in test:
            test["equals"] = assertion.get("value")
        else:
            left_out[f"assertions of type {assertion.get('type')}"] += 1
    variables = test.get("vars") or {}
    only_one = isinstance(variables, Mapping) and len(variables) == 1
    test[_PROMPTFOO_INPUT] = next(iter(variables.values())) if only_one else variables
    return SourceRow(row.where, test)


def _csv(path: Path) -> Iterator[SourceRow]:
    reader = csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise BadInput(f"{path}:1: the header has a column twice; give each its own name")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    raise BadInput(
                        f"{path}:{line}: {len(cells)} cells, but the header has {len(header)}; correct the row"
                    )
                yield SourceRow(f"{path}:{line}", dict(zip(header, cells, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not valid CSV ({error}); correct that row") from error


def _jsonl(path: Path) -> Iterator[SourceRow]:
    # Only "\n" ends a line: a text in JSON may contain characters that `splitlines` takes for line endings.
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not valid JSON ({error}); correct that line") from error
        if not isinstance(value, dict):
            raise BadInput(f"{path}:{number}: {type(value).__name__} is not a case; write one object per line")
        yield SourceRow(f"{path}:{number}", value)


def _list_items(
    path: Path, key: str, left_out: Counter[str], unsupported: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings in the list under `key`, or in the file if that is itself a list, each with its file and line.

    Entries of the `unsupported` keys are counted in `left_out`.
    """
    if path.suffix.lower() == ".json":
        try:
            value: Any = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: not valid JSON ({error}); correct it") from error
        places = None
    else:
        document = read_yaml(path)
        value, places = document.value, document
    under_key = isinstance(value, dict)
    cases = value.get(key) if under_key else value
    if not isinstance(cases, list):
        raise BadInput(f"{path}: no list of {key}; if another tool wrote the file, give its format with --format")
    for name in unsupported if under_key else ():
        left_out[name] += len(value.get(name) or ())
    for index, case in enumerate(cases):
        where = (
            f"{path}:{places.line((key, index) if under_key else (index,))}"
            if places
            else f"{path}: number {index + 1}"
        )
        if isinstance(case, str):
            left_out["references to other files"] += 1
        elif isinstance(case, dict):
            yield where, case
        else:
            raise BadInput(f"{where}: {type(case).__name__} is not a case; write a mapping")
