"""An eval set: cases, each an input with the fields of a right answer, read from YAML that people review."""

import datetime as dt
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError, field_validator

from handrail.kernel.errors import BadInput

from .yaml_reader import Document, read_text, read_yaml

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1)]
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")]

SetT = TypeVar("SetT", bound="EvalSet")

_ERRORS_SHOWN = 5


class StrictModel(BaseModel):
    """The base of everything read from an eval set's files: immutable, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Case(StrictModel):
    """One frozen input and the fields of its right answer."""

    id: Slug
    input: Text
    input_file: str | None = None
    """The file that `input` was read from, relative to the eval set's folder; None when it is written in the YAML."""
    expect: dict[str, JsonValue] = Field(min_length=1)
    source: Line
    date: dt.date
    tags: tuple[Line, ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) of everything the case means.

        The order of the tags and where the input is stored are left out: neither changes what is asked or expected.
        """
        content = self.model_dump(mode="json", exclude={"input_file"})
        return content_sha256(content | {"tags": sorted(self.tags)})


class DraftCase(Case):
    """A case that may still lack expectations, which a person has to fill in."""

    expect: dict[str, JsonValue] = Field(default_factory=dict)


class EvalSet(StrictModel):
    """A named list of cases with unique ids."""

    name: Slug
    description: Text
    cases: tuple[Case, ...]

    @field_validator("cases")
    @classmethod
    def _not_empty(cls, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        # As a constraint of the field, pydantic would also report it whenever every case is invalid.
        if not cases:
            raise ValueError("an eval set needs at least one case")
        return cases

    @cached_property
    def case_hashes(self) -> dict[str, str]:
        """The content hash of each case, by case id."""
        return {case.id: case.content_hash for case in self.cases}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) over the cases, independent of their order and of the file's formatting."""
        return content_sha256(self.case_hashes)


class DraftSet(EvalSet):
    """Draft cases that may be added to an eval set once they are complete."""

    cases: tuple[DraftCase, ...]


def load_eval_set(path: Path) -> EvalSet:
    """Reads an eval set from YAML, together with the files that its cases refer to.

    Raises:
        BadInput: The file cannot be read or is not valid; names file, line and case, and what to do.
    """
    return _load(EvalSet, path)


def load_drafts(path: Path) -> DraftSet:
    """Reads draft cases from YAML: like `load_eval_set`, except that `expect` may be empty or missing."""
    return _load(DraftSet, path)


def eval_set_schema() -> dict[str, Any]:
    """The JSON schema of an eval set's YAML, for editors; a case has either `input` or `input_file`."""
    schema = EvalSet.model_json_schema()
    case = schema["$defs"]["Case"]
    case["required"].remove("input")
    case["oneOf"] = [{"required": ["input"]}, {"required": ["input_file"]}]
    case["properties"]["input_file"] = {
        "type": "string",
        "description": "a file in the eval set's folder that holds the input",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def content_sha256(value: object) -> str:
    """SHA-256 (64 hex digits) of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _load(kind: type[SetT], path: Path) -> SetT:
    document = read_yaml(path)
    _inline_files(document)
    try:
        eval_set = kind.model_validate(document.value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [f"{_place(document, p['loc'])}: {_advice(p['type'], p['msg'])}" for p in problems[:_ERRORS_SHOWN]]
        if len(problems) > _ERRORS_SHOWN:
            lines.append(f"and {len(problems) - _ERRORS_SHOWN} more")
        raise BadInput("\n".join(lines)) from error
    _refuse_duplicate_ids(document, eval_set)
    return eval_set


def _inline_files(document: Document) -> None:
    """Sets `input` to the text of each `input_file`; values of the wrong type are left for validation to report."""
    cases = document.value.get("cases") if isinstance(document.value, dict) else None
    for index, case in enumerate(cases if isinstance(cases, list) else ()):
        if not isinstance(case, dict) or not isinstance(case.get("input_file"), str):
            continue
        place = _place(document, ("cases", index, "input_file"))
        if "input" in case:
            raise BadInput(f"{place}: the case has both input and input_file; keep one of them")
        try:
            case["input"] = _read_inside(document.path.parent.resolve(), case["input_file"])
        except ValueError as error:
            raise BadInput(f"{place}: {error}") from error


def _read_inside(folder: Path, name: str) -> str:
    """The text of a file in `folder`. Raises ValueError when it is outside the folder, or the name is not a path."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise BadInput(f"{name} is outside the eval set's folder; move the file into it")
    return read_text(file)


def _refuse_duplicate_ids(document: Document, eval_set: EvalSet) -> None:
    first_lines: dict[str, int] = {}
    for index, case in enumerate(eval_set.cases):
        if case.id in first_lines:
            place = _place(document, ("cases", index, "id"))
            raise BadInput(
                f"{place}: the case on line {first_lines[case.id]} already has this id; give each case its own"
            )
        first_lines[case.id] = document.line(("cases", index, "id"))


def _place(document: Document, where: tuple[str | int, ...]) -> str:
    """The head of an error message, such as `cases.yaml:12: case 'late-parcel', expect.order`."""
    head = f"{document.path}:{document.line(where)}"
    match where:
        case ("cases", int(index), *rest):
            field = ".".join(map(str, rest))
            return f"{head}: case {_case_name(document, index)}" + (f", {field}" if field else "")
        case _:
            return f"{head}: {'.'.join(map(str, where)) or 'the file'}"


def _case_name(document: Document, index: int) -> str:
    cases = document.value["cases"] if isinstance(document.value, dict) else []
    name = cases[index].get("id") if isinstance(cases[index], dict) else None
    return repr(name) if isinstance(name, str) else f"number {index + 1}"


def _advice(kind: str, message: str) -> str:
    """What to do about a validation error of pydantic."""
    match kind:
        case "missing":
            return "this field is required; add it"
        case "extra_forbidden":
            return "no such field; remove it or correct its name"
        case "string_pattern_mismatch":
            return f"{message}; use lower-case words joined by hyphens for names, one plain line for other texts"
        case "value_error":
            return f"{message.removeprefix('Value error, ')}; add one"
        case "string_type":
            return f"{message}; put the value in quotes"
        case "date_type" | "date_parsing" | "date_from_datetime_parsing" | "date_from_datetime_inexact":
            return f"{message}; write a date as 2026-01-31"
        case _:
            return f"{message}; correct the value"
