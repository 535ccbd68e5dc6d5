"""A file of candidates, which people complete with expectations, and what adds the completed ones to the eval set."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handrail.evals.eval_set.file_lock import exclusive_edit
from handrail.evals.eval_set.lock import (
    EvalSetDiff,
    FreezeResult,
    check_frozen,
    diff_from_lock,
    freeze,
    lock_path,
    validate_reason,
)
from handrail.evals.eval_set.model import Case, DraftCase, EvalSet, load_drafts, load_eval_set
from handrail.evals.eval_set.validation import check_expectations
from handrail.evals.eval_set.yaml_writer import append_cases, format_case
from handrail.kernel.errors import BadInput

from .sample import CandidateSample


@dataclass(frozen=True, kw_only=True)
class AcceptedCandidates:
    """The ids of the candidates that were added, those still incomplete, and the result of freezing the eval set."""

    cases: tuple[str, ...]
    incomplete: tuple[str, ...]
    frozen: FreezeResult


def write_candidates(path: Path, sample: CandidateSample, agent: str, eval_set: EvalSet) -> None:
    """Writes the candidates to a new file for people to complete; it does not contain what the agent answered.

    Args:
        path: The file to create.
        sample: The candidates.
        agent: The agent's name.
        eval_set: The eval set that they are for.

    Raises:
        BadInput: The file exists already or cannot be written.
    """
    fields = dict.fromkeys(name for case in eval_set.cases for name in case.expect)
    head = (
        f"# Candidates for {agent}, sampled from {sample.runs} runs; redaction: {sample.redaction}.\n"
        "# Read each input before you keep it: redaction finds only the patterns it knows. Fill in `expect` by your\n"
        f"# own rules, whatever the agent answered, as {{{', '.join(f'{name}: ...' for name in fields)}}},\n"
        f'# and delete what is of no use. Then: handrail eval accept {agent} {path.name} --why "..."\n'
    )
    cases = [
        DraftCase(
            id=f"run-{candidate.run_id[-8:]}",
            input=candidate.input,
            source=candidate.source,
            date=candidate.sampled_on,
            tags=("production", candidate.stratum),
        )
        for candidate in sample.candidates
    ]
    write_cases(path, agent, "Candidates: inputs from production.", cases, head)


def write_cases(path: Path, name: str, description: str, cases: Sequence[Case], header_comments: str = "") -> None:
    """Writes cases to a new YAML file.

    Args:
        path: The file to create.
        name: The name of the eval set.
        description: Its description.
        cases: Its cases.
        head: Comment lines to start the file with.

    Raises:
        BadInput: The file exists already or cannot be written.
    """
    text = f"{header_comments}name: {name}\ndescription: {json.dumps(description)}\ncases:\n"
    text += "\n".join(format_case(case, "  ") for case in cases)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadInput(f"{path}: exists already; name another file, or remove it") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written ({error.strerror}); check the folder and the disk") from error


def accept_candidates(path: Path, candidates: Path, why: str, today: dt.date) -> AcceptedCandidates:
    """Adds the completed candidates to an eval set and freezes it; those without an expectation are left out.

    A crash in between can leave added cases that are not frozen; calling it again completes the work.

    Args:
        path: The eval set.
        candidates: The file of candidates.
        why: The reason, kept in the lock's history.
        today: The date of the history entry.

    Raises:
        BadInput: The eval set has other changes that are not frozen, no candidate is complete, or one does not fit the
            eval set; nothing was changed then.
    """
    reason, drafts = validate_reason(path, why), load_drafts(candidates)
    complete = [Case(**draft.model_dump()) for draft in drafts.cases if draft.expect]
    if not complete:
        raise BadInput(f"{candidates}: no candidate is complete; fill in `expect` where you know the right answer")
    with exclusive_edit(path):
        frozen = _add_and_freeze(path, candidates, complete, reason, today)
    return AcceptedCandidates(
        cases=tuple(case.id for case in complete),
        incomplete=tuple(draft.id for draft in drafts.cases if not draft.expect),
        frozen=frozen,
    )


def _add_and_freeze(
    path: Path, candidates: Path, complete: Sequence[Case], reason: str, today: dt.date
) -> FreezeResult:
    eval_set = load_eval_set(path)
    for case in complete:
        check_expectations(eval_set, case.expect, f"{candidates}: case {case.id}, expect", "{name}: {value}")
    hashes = eval_set.case_hashes
    new = [case for case in complete if hashes.get(case.id) != case.content_hash]
    if conflicting := [case.id for case in new if case.id in hashes]:
        raise BadInput(f"{candidates}: {', '.join(conflicting)}: the eval set already uses these ids; choose others")
    # An earlier call may have added cases and crashed before it froze them. Any other difference is an error.
    added_before = tuple(sorted(case.id for case in complete if case not in new))
    if diff_from_lock(eval_set, lock_path(path)) != EvalSetDiff(added=added_before):
        check_frozen(eval_set, lock_path(path))
    if new:
        append_cases(path, *new)
    return freeze(path, reason, today)
