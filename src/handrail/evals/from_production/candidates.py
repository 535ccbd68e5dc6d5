"""Candidates in a file of their own, a set's YAML without expectations, until people have completed them."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handrail.evals.eval_set.file_lock import changing
from handrail.evals.eval_set.model import (
    Case,
    Difference,
    EvalSet,
    Frozen,
    OpenCase,
    changes_since,
    check_frozen,
    checked_reason,
    freeze,
    load_open_set,
    load_set,
    lock_path,
)
from handrail.evals.eval_set.validation import check_expectations
from handrail.evals.eval_set.yaml_writer import append_case, written_case
from handrail.kernel.errors import BadInput

from .sample import Drawn


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What of a file of candidates went into the set, what is not completed yet, and the set as it was frozen."""

    cases: tuple[str, ...]
    open: tuple[str, ...]
    frozen: Frozen


def write_candidates(path: Path, drawn: Drawn, agent: str, loaded: EvalSet) -> None:
    """Writes the candidates for people to complete, blind to what the agent said. Raises what `write_cases` raises."""
    fields = dict.fromkeys(name for case in loaded.cases for name in case.expect)
    head = (
        f"# Candidates for {agent}, drawn from {drawn.looked_at} runs; redaction: {drawn.redaction}.\n"
        "# Read each input before you keep it: a redaction finds only what it knows. Fill in what is right by your\n"
        f"# own rules, whatever the agent said, as {{{', '.join(f'{name}: ...' for name in fields)}}},\n"
        f'# and delete what is no use. Then: handrail eval take {agent} {path.name} --why "..."\n'
    )
    cases = [
        OpenCase(
            id=f"run-{each.run_id[-8:]}",
            input=each.input,
            source=each.source,
            date=each.on,
            tags=("production", each.stratum),
        )
        for each in drawn.candidates
    ]
    write_cases(path, agent, "Candidates: what production was asked.", cases, head)


def write_cases(path: Path, name: str, description: str, cases: Sequence[Case], head: str = "") -> None:
    """Writes a new file of cases below a comment. Raises BadInput where a file is there or it cannot be written."""
    text = f"{head}name: {name}\ndescription: {json.dumps(description)}\ncases:\n"
    text += "\n".join(written_case(case, "  ") for case in cases)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadInput(f"{path}: it is there already; name another file, or remove it") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written ({error.strerror}); check the folder and the disk") from error


def take(path: Path, candidates: Path, why: str, today: dt.date) -> Taken:
    """Adds the completed candidates to the set at `path` and freezes it; those without an expectation are left alone.

    A crash between leaves cases that are not frozen, and the same call again completes it. Raises BadInput, with
    nothing changed, where the set is not frozen otherwise, no candidate is completed, or one cannot be a case of it.
    """
    reason, drafts = checked_reason(path, why), load_open_set(candidates)
    ready = [Case(**draft.model_dump()) for draft in drafts.cases if draft.expect]
    if not ready:
        raise BadInput(f"{candidates}: no candidate is completed; fill in `expect` where you know what is right")
    with changing(path):
        frozen = _add(path, candidates, ready, reason, today)
    return Taken(
        cases=tuple(case.id for case in ready),
        open=tuple(draft.id for draft in drafts.cases if not draft.expect),
        frozen=frozen,
    )


def _add(path: Path, candidates: Path, ready: Sequence[Case], reason: str, today: dt.date) -> Frozen:
    loaded = load_set(path)
    for case in ready:
        check_expectations(loaded, case.expect, f"{candidates}: case {case.id}, expect", "{name}: {value}")
    hashes = loaded.case_hashes
    new = [case for case in ready if hashes.get(case.id) != case.content_hash]
    if taken := [case.id for case in new if case.id in hashes]:
        raise BadInput(f"{candidates}: {', '.join(taken)}: the set has cases of that name; give them others")
    there = tuple(sorted(case.id for case in ready if case not in new))
    if changes_since(loaded, lock_path(path)) != Difference(added=there):
        check_frozen(loaded, lock_path(path))
    if new:
        append_case(path, *new)
    return freeze(path, reason, today)
