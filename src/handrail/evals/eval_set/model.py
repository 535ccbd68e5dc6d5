"""An eval set: cases with what good looks like, and the lock that notices when one of them changes.

A score means something only beside the set it was measured on, so a set is frozen: its lock file holds a hash per case
and a history of why it changed. `load_set` reads, `check_frozen` compares with the lock, `freeze` writes the lock.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file

from .file_lock import changing
from .yaml_reader import Document, read_text, read_yaml

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1)]
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")]

SetT = TypeVar("SetT", bound="EvalSet")

_ERRORS_SHOWN = 5


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Case(_Record):
    """One frozen input and the fields its right answer has."""

    id: Slug
    input: Text
    input_file: str | None = None
    """Where `input` was read from, relative to the set's folder; None when it stands in the YAML itself."""
    expect: dict[str, JsonValue] = Field(min_length=1)
    source: Line
    date: dt.date
    tags: tuple[Line, ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) of all that the case means.

        The order of tags and the place of the input are left out: neither changes what is asked or expected.
        """
        content = self.model_dump(mode="json", exclude={"input_file"})
        return _sha256(content | {"tags": sorted(self.tags)})


class OpenCase(Case):
    """A case that may have no expectation yet: people still have to say what is right."""

    expect: dict[str, JsonValue] = Field(default_factory=dict)


class EvalSet(_Record):
    """A named list of cases with unique ids."""

    name: Slug
    description: Text
    cases: tuple[Case, ...]

    @field_validator("cases")
    @classmethod
    def _not_empty(cls, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        # As a constraint of the field, pydantic would also report it whenever every case is wrong.
        if not cases:
            raise ValueError("a set needs at least one case")
        return cases

    @cached_property
    def case_hashes(self) -> dict[str, str]:
        return {case.id: case.content_hash for case in self.cases}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) over the cases, whatever their order and the file's formatting."""
        return _sha256(self.case_hashes)


class OpenSet(EvalSet):
    """Cases on their way into a set, some of them not completed yet."""

    cases: tuple[OpenCase, ...]


@dataclass(frozen=True)
class Difference:
    """Case ids, sorted, that separate one state of a set from another."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        parts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return "; ".join(f"{verb}: {', '.join(ids)}" for verb, ids in parts if ids) or "no difference"


class Change(_Record):
    """One entry of a lock's history: what was frozen, when and why."""

    hash: str
    date: dt.date
    why: str
    cases: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Lock(_Record):
    """What the lock file holds: the frozen hash, the hash of each case, and the history, oldest first."""

    name: str
    hash: str
    history: tuple[Change, ...] = Field(min_length=1)
    cases: dict[str, str]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.hash != _sha256(self.cases) or self.history[-1].hash != self.hash:
            raise ValueError("its hashes do not agree with each other")
        return self


@dataclass(frozen=True)
class Frozen:
    """What `freeze` did: `difference` is empty, and nothing was written, when the lock was already right."""

    lock: Path
    content_hash: str
    difference: Difference

    @property
    def written(self) -> bool:
        return bool(self.difference)


def load_set(path: Path) -> EvalSet:
    """Read a set from YAML, with the files its cases name; BadInput names file, line, case and what to do."""
    return _load(EvalSet, path)


def load_open_set(path: Path) -> OpenSet:
    """As `load_set`, but the expectations of cases may be empty."""
    return _load(OpenSet, path)


def lock_path(path: Path) -> Path:
    """Where the lock of the set at `path` lies: beside it, `cases.yaml` having `cases.lock`."""
    return path.with_suffix(".lock")


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """What separates two states of a set, each given as case id -> case hash."""
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(case for case in before.keys() & after.keys() if before[case] != after[case])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def changes_since(loaded: EvalSet, lock: Path) -> Difference:
    """What separates the set from what its lock says. Raises BadInput where there is no lock."""
    if not lock.exists():
        raise BadInput(f"{lock}: missing, so nobody can tell whether the set changed; freeze it: {_remedy(loaded)}")
    return compare(_read_lock(lock).cases, loaded.case_hashes)


def check_frozen(loaded: EvalSet, lock: Path) -> None:
    """Raise BadInput, naming the cases, unless the set is exactly what its lock says."""
    difference = changes_since(loaded, lock)
    if difference:
        raise BadInput(
            f"{loaded.name} differs from {lock} ({difference}); undo that, or freeze it with a reason: "
            f"{_remedy(loaded)}"
        )


def freeze(path: Path, why: str, today: dt.date) -> Frozen:
    """Write the lock of the set at `path`, adding the reason to its history; nothing is written when nothing changed.

    The lock is replaced in one step, so a reader or a crash never meets half of it.
    """
    reason = checked_reason(path, why)
    lock = lock_path(path)
    with changing(path):
        loaded = load_set(path)
        before = _read_lock(lock) if lock.exists() else None
        difference = compare(before.cases if before else {}, loaded.case_hashes)
        if difference:
            change = Change(
                hash=loaded.content_hash,
                date=today,
                why=reason,
                cases=len(loaded.cases),
                added=difference.added,
                changed=difference.changed,
                removed=difference.removed,
            )
            history = (*(before.history if before else ()), change)
            cases = dict(sorted(loaded.case_hashes.items()))
            _replace(lock, Lock(name=loaded.name, hash=loaded.content_hash, history=history, cases=cases))
    return Frozen(lock, loaded.content_hash, difference)


def history(path: Path) -> tuple[Change, ...]:
    """What was frozen of the set at `path`, when and why, oldest first. Raises BadInput where it has no lock."""
    lock = lock_path(path)
    if not lock.exists():
        raise BadInput(f"{lock}: missing, so nothing was ever frozen; `handrail eval freeze` begins the history")
    return _read_lock(lock).history


def set_schema() -> dict[str, Any]:
    """The JSON schema of a set's YAML, for editors: a case has its input in place, or in a file."""
    schema = EvalSet.model_json_schema()
    case = schema["$defs"]["Case"]
    case["required"].remove("input")
    case["oneOf"] = [{"required": ["input"]}, {"required": ["input_file"]}]
    case["properties"]["input_file"] = {"type": "string", "description": "a file beside the set that has the input"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def checked_reason(path: Path, why: str) -> str:
    """The reason on one line. Raises BadInput where it says nothing."""
    reason = " ".join(why.split())
    if not reason:
        raise BadInput(f"{path}: freezing needs a reason that a reviewer can judge; say it with --why")
    return reason


def _load(kind: type[SetT], path: Path) -> SetT:
    document = read_yaml(path)
    _inline_files(document)
    try:
        loaded = kind.model_validate(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        shown = [f"{_place(document, e['loc'])}: {_advice(e['type'], e['msg'])}" for e in found[:_ERRORS_SHOWN]]
        more = [f"and {len(found) - _ERRORS_SHOWN} more"] if len(found) > _ERRORS_SHOWN else []
        raise BadInput("\n".join(shown + more)) from error
    _refuse_duplicate_ids(document, loaded)
    return loaded


def _remedy(loaded: EvalSet) -> str:
    return f'handrail eval freeze {loaded.name} --why "..."'


def _sha256(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _inline_files(document: Document) -> None:
    """Put the text of each `input_file` where `input` would stand; what has the wrong shape is left to validation."""
    cases = document.value.get("cases") if isinstance(document.value, dict) else None
    for index, case in enumerate(cases if isinstance(cases, list) else ()):
        if not isinstance(case, dict) or not isinstance(case.get("input_file"), str):
            continue
        where = _place(document, ("cases", index, "input_file"))
        if "input" in case:
            raise BadInput(f"{where}: the case has both input and input_file; keep one of them")
        try:
            case["input"] = _text_inside(document.path.parent.resolve(), case["input_file"])
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error


def _text_inside(folder: Path, name: str) -> str:
    """The text of a file that must lie in `folder`; ValueError when it does not, or is no path at all."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise BadInput(f"{name} lies outside the set's folder; move the file into it")
    return read_text(file)


def _refuse_duplicate_ids(document: Document, loaded: EvalSet) -> None:
    first: dict[str, int] = {}
    for index, case in enumerate(loaded.cases):
        line = document.line(("cases", index, "id"))
        if case.id in first:
            where = _place(document, ("cases", index, "id"))
            raise BadInput(f"{where}: the id is taken by the case on line {first[case.id]}; give each case its own")
        first[case.id] = line


def _place(document: Document, where: tuple[str | int, ...]) -> str:
    """`cases.yaml:12: case 'late-parcel', expect.order`, for the head of a message."""
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
    """What to do about one of pydantic's complaints."""
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
            return f"{message}; write a day as 2026-01-31"
        case _:
            return f"{message}; correct the value"


def _read_lock(path: Path) -> Lock:
    try:
        return Lock.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        problem = f"{field}: {first['msg']}"
        raise BadInput(
            f"{path}: not as `handrail eval freeze` wrote it ({problem}); restore it from version control"
        ) from error


def _replace(path: Path, lock: Lock) -> None:
    try:
        replace_file(path, lock.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); the lock is as it was") from error
