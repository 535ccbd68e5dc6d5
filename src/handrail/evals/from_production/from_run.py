"""Turns a production run with feedback into a frozen case of the agent's eval set."""

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

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
from handrail.evals.eval_set.model import Case, EvalSet, load_eval_set
from handrail.evals.eval_set.validation import check_expectations
from handrail.evals.eval_set.yaml_writer import append_cases
from handrail.evals.spec import EVALS_TENANT, EvalSpec
from handrail.kernel.errors import BadInput
from handrail.review.feedback import Feedback, load_feedback, mark_used_in_case
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import load_input, load_run


@dataclass(frozen=True, kw_only=True)
class ReviewedRun:
    """A production run and what a person says its answer should have been.

    `input` is the run's input as JSON. `right` says whether the run's own answer was right; None without feedback.
    """

    run_id: str
    input: Any
    right: bool | None
    expected: Mapping[str, JsonValue]
    by: str
    reviewed_on: dt.date
    note: str | None = None

    @property
    def source(self) -> str:
        """The `source` of the case that the run becomes."""
        verb = {None: "judged", True: "marked right", False: "marked wrong"}[self.right]
        note = f": {self.note}" if self.note else ""
        return " ".join(f"production run {self.run_id}, {verb} by {self.by} on {self.reviewed_on}{note}".split())


@dataclass(frozen=True, kw_only=True)
class AddedCase:
    """A case that was added to an eval set, and the result of freezing it."""

    case: Case
    frozen: FreezeResult


async def add_case(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    run_id: str,
    *,
    why: str,
    by: str,
    expected: Mapping[str, JsonValue] | None = None,
    case_id: str | None = None,
) -> AddedCase:
    """Adds a run of the agent to its eval set as a case, and freezes the eval set.

    The case is written to the YAML first, then the lock, then the feedback is marked as used. So a crash can leave a
    case that is not frozen, or feedback without its case; calling this again completes the work.

    Args:
        runtime: Where the run is stored.
        spec: The eval spec of the agent.
        run_id: A production run of the agent.
        why: The reason for the change, kept in the lock's history.
        by: Who adds the case.
        expected: The fields of the right answer; only needed when the run's newest feedback does not have them.
        case_id: The id of the case; derived from the run's id when None.

    Returns:
        The case and the result of freezing the eval set.

    Raises:
        NotFound: There is no such run.
        BadInput: The eval set has other changes that are not frozen, the run is already a case, or it cannot become
            one; nothing was changed then.
    """
    path, today = spec.cases, runtime.clock.now().date()
    reason = validate_reason(path, why)
    run, feedback = await _load_reviewed_run(runtime, spec.name, run_id, expected or {}, by)
    # In a thread, since it may have to wait for other processes that edit the eval set.
    added = await asyncio.to_thread(_add_and_freeze, path, run, feedback, reason, today, case_id)
    if feedback is not None:
        await runtime.database.write(mark_used_in_case(feedback.feedback_id, added.case.id))
    return added


def case_from_run(eval_set: EvalSet, run: ReviewedRun, today: dt.date, *, case_id: str | None = None) -> Case:
    """Makes a case for this eval set from a run.

    Args:
        eval_set: The eval set.
        run: The run and the right answer.
        today: The date of the case.
        case_id: The id of the case; the end of the run's id when None.

    Raises:
        BadInput: The input is not a text, the right answer is missing or has fields or types that no case of the eval
            set expects, or `case_id` is taken or not valid.
    """
    if not isinstance(run.input, str):
        raise BadInput(f"run {run.run_id}: its input is not plain text, which a case needs; write the case by hand")
    used = {case.id for case in eval_set.cases}
    if case_id in used:
        raise BadInput(f"case id {case_id}: already used in {eval_set.name}; give another with --id")
    _check_expected(eval_set, run)
    try:
        return Case(
            id=_unused_id(run.run_id, used) if case_id is None else case_id,
            input=run.input,
            expect=dict(run.expected),
            source=run.source,
            date=today,
            tags=("production",),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise BadInput(f"run {run.run_id} cannot become a case: {field}: {problem['msg']}; correct it") from error


def _add_and_freeze(
    path: Path, run: ReviewedRun, feedback: Feedback | None, reason: str, today: dt.date, case_id: str | None
) -> AddedCase:
    source_start = f"production run {run.run_id},"
    with exclusive_edit(path):
        eval_set = load_eval_set(path)
        existing = next((case for case in eval_set.cases if case.source.startswith(source_start)), None)
        if existing is None:
            check_frozen(eval_set, lock_path(path))
            case = case_from_run(eval_set, run, today, case_id=case_id)
            append_cases(path, case)
        else:
            case = _finish_interrupted(eval_set, path, existing, run, feedback)
        return AddedCase(case=case, frozen=freeze(path, reason, today))


async def _load_reviewed_run(
    runtime: Runtime, agent: str, run_id: str, expected: Mapping[str, JsonValue], by: str
) -> tuple[ReviewedRun, Feedback | None]:
    now = runtime.clock.now()
    run = await runtime.database.read(load_run(run_id, now))
    if run.agent != agent or run.tenant == EVALS_TENANT:
        description = "a trial of an eval set" if run.tenant == EVALS_TENANT else f"of agent {run.agent}"
        raise BadInput(f"run {run.run_id} is {description}; name a production run of {agent}")
    run_input = await runtime.database.read(load_input(run.run_id))
    all_feedback = await runtime.database.read(load_feedback(run.run_id))
    newest = max(all_feedback, key=lambda feedback: (feedback.at, feedback.feedback_id), default=None)
    if newest is None:
        reviewed = ReviewedRun(
            run_id=run.run_id, input=run_input, right=None, expected=expected, by=by, reviewed_on=now.date()
        )
        return reviewed, None
    if newest.expected and expected and dict(newest.expected) != dict(expected):
        raise BadInput(
            f"run {run.run_id}: {newest.by} already said what it should have been; leave --expected out, or give new "
            "feedback with `handrail runs feedback`"
        )
    reviewed = ReviewedRun(
        run_id=run.run_id,
        input=run_input,
        right=newest.right,
        expected=newest.expected or expected,
        by=newest.by,
        reviewed_on=newest.at.date(),
        note=newest.note,
    )
    return reviewed, newest


def _finish_interrupted(
    eval_set: EvalSet, path: Path, existing: Case, run: ReviewedRun, feedback: Feedback | None
) -> Case:
    """The run's existing case, if an earlier call was interrupted. Raises BadInput if that call had finished."""
    already_added = BadInput(
        f"run {run.run_id} is already case {existing.id} of {eval_set.name}; change that case by hand"
    )
    if diff_from_lock(eval_set, lock_path(path)) != EvalSetDiff(added=(existing.id,)):
        check_frozen(eval_set, lock_path(path))
        if feedback is None or feedback.case_id == existing.id:
            raise already_added
    # It is the interrupted call's case only if this call would make the same one.
    others = eval_set.model_copy(update={"cases": tuple(case for case in eval_set.cases if case is not existing)})
    same_run = run if feedback else replace(run, reviewed_on=existing.date)
    if case_from_run(others, same_run, existing.date, case_id=existing.id).content_hash != existing.content_hash:
        raise already_added
    return existing


def _check_expected(eval_set: EvalSet, run: ReviewedRun) -> None:
    if not run.expected:
        fields = ", ".join(sorted({name for case in eval_set.cases for name in case.expect}))
        raise BadInput(
            f"run {run.run_id}: nobody has said yet what it should have been; give --expected FIELD=VALUE, with fields "
            f"of {fields}"
        )
    check_expectations(eval_set, run.expected, "expected", "--expected '{name}={value}'")


def _unused_id(run_id: str, used: set[str]) -> str:
    first = f"run-{run_id[-8:]}"
    return next(name for name in (first if n == 1 else f"{first}-{n}" for n in count(1)) if name not in used)
