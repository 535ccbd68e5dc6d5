"""The lock of an eval set: the hash of each case, and a history of why the eval set changed.

A score means something only for the cases it was measured on, so an eval set is frozen. `freeze` writes the lock,
`check_frozen` compares the eval set with it.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file

from .file_lock import exclusive_edit
from .model import EvalSet, StrictModel, content_sha256, load_eval_set
from .yaml_reader import read_text


@dataclass(frozen=True)
class EvalSetDiff:
    """How two states of an eval set differ, as sorted case ids."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        parts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return "; ".join(f"{verb}: {', '.join(ids)}" for verb, ids in parts if ids) or "no difference"


class LockEntry(StrictModel):
    """One entry of a lock's history: what was frozen, when and why."""

    hash: str
    date: dt.date
    why: str
    cases: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Lock(StrictModel):
    """The content of a lock file: the eval set's hash, the hash of each case, and the history, oldest first."""

    name: str
    hash: str
    history: tuple[LockEntry, ...] = Field(min_length=1)
    cases: dict[str, str]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.hash != content_sha256(self.cases) or self.history[-1].hash != self.hash:
            raise ValueError("its hashes contradict each other")
        return self


@dataclass(frozen=True)
class FreezeResult:
    """The result of `freeze`: with an empty `diff`, the lock was already up to date and nothing was written."""

    lock: Path
    content_hash: str
    diff: EvalSetDiff

    @property
    def written(self) -> bool:
        """Whether the lock file was written."""
        return bool(self.diff)


def lock_path(path: Path) -> Path:
    """The lock file of the eval set at `path`, in the same folder: `cases.lock` for `cases.yaml`."""
    return path.with_suffix(".lock")


def diff_hashes(before: Mapping[str, str], after: Mapping[str, str]) -> EvalSetDiff:
    """Compares two states of an eval set, each given as case id -> content hash."""
    return EvalSetDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(case for case in before.keys() & after.keys() if before[case] != after[case])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def diff_from_lock(eval_set: EvalSet, lock: Path) -> EvalSetDiff:
    """How the eval set differs from its lock. Raises BadInput when there is no lock."""
    if not lock.exists():
        raise BadInput(
            f"{lock}: missing, so changes to the eval set cannot be detected; freeze it: {_freeze_command(eval_set)}"
        )
    return diff_hashes(_read_lock(lock).cases, eval_set.case_hashes)


def check_frozen(eval_set: EvalSet, lock: Path) -> None:
    """Raises BadInput, naming the cases, unless the eval set is exactly what its lock says."""
    if diff := diff_from_lock(eval_set, lock):
        raise BadInput(
            f"{eval_set.name} differs from {lock} ({diff}); undo the change, or freeze it with a reason: "
            f"{_freeze_command(eval_set)}"
        )


def freeze(path: Path, why: str, today: dt.date) -> FreezeResult:
    """Writes the lock of the eval set at `path` and adds `why` to its history; writes nothing when nothing changed.

    The lock is replaced atomically, so neither a reader nor a crash leaves half of it.

    Args:
        path: The eval set's YAML file.
        why: The reason, kept in the history.
        today: The date of the history entry.

    Raises:
        BadInput: The reason is empty, or a file cannot be read, locked or written.
    """
    reason = validate_reason(path, why)
    lock = lock_path(path)
    with exclusive_edit(path):
        eval_set = load_eval_set(path)
        before = _read_lock(lock) if lock.exists() else None
        diff = diff_hashes(before.cases if before else {}, eval_set.case_hashes)
        if diff:
            entry = LockEntry(
                hash=eval_set.content_hash,
                date=today,
                why=reason,
                cases=len(eval_set.cases),
                added=diff.added,
                changed=diff.changed,
                removed=diff.removed,
            )
            history = (*(before.history if before else ()), entry)
            cases = dict(sorted(eval_set.case_hashes.items()))
            _write_lock(lock, Lock(name=eval_set.name, hash=eval_set.content_hash, history=history, cases=cases))
    return FreezeResult(lock, eval_set.content_hash, diff)


def freeze_history(path: Path) -> tuple[LockEntry, ...]:
    """The history of the eval set at `path`, oldest first. Raises BadInput when it has no lock."""
    lock = lock_path(path)
    if not lock.exists():
        raise BadInput(f"{lock}: missing, so the eval set was never frozen; `handrail eval freeze` starts its history")
    return _read_lock(lock).history


def validate_reason(path: Path, why: str) -> str:
    """The reason on one line. Raises BadInput when it is empty."""
    reason = " ".join(why.split())
    if not reason:
        raise BadInput(f"{path}: freezing needs a reason that a reviewer can judge; give one with --why")
    return reason


def _freeze_command(eval_set: EvalSet) -> str:
    return f'handrail eval freeze {eval_set.name} --why "..."'


def _read_lock(path: Path) -> Lock:
    try:
        return Lock.model_validate_json(read_text(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"])) or "the file"
        raise BadInput(
            f"{path}: not as `handrail eval freeze` wrote it ({field}: {problem['msg']}); restore it from version "
            "control"
        ) from error


def _write_lock(path: Path, lock: Lock) -> None:
    try:
        replace_file(path, lock.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); the lock is unchanged") from error
