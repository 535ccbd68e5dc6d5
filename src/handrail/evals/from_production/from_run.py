"""A set grows by what production showed: a run that a person judged becomes a frozen case."""

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from handrail.evals.eval_set.file_lock import changing
from handrail.evals.eval_set.model import (
    Case,
    Difference,
    EvalSet,
    Frozen,
    changes_since,
    check_frozen,
    checked_reason,
    freeze,
    load_set,
    lock_path,
)
from handrail.evals.eval_set.validation import check_expectations
from handrail.evals.eval_set.yaml_writer import append_case
from handrail.evals.tenant import TENANT
from handrail.kernel.errors import BadInput
from handrail.review.feedback import Verdict, used_in_case, verdicts_of
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import load_input, load_run


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A run of production, and what a person says its answer should have been. `asked` is its input, as JSON.

    `right` is whether the run's own answer was; None where nobody said.
    """

    run_id: str
    asked: Any
    right: bool | None
    should: Mapping[str, JsonValue]
    by: str
    on: dt.date
    note: str | None = None

    @property
    def source(self) -> str:
        verb = {None: "judged", True: "marked right", False: "marked wrong"}[self.right]
        said = f"production run {self.run_id}, {verb} by {self.by} on {self.on}" + (
            f": {self.note}" if self.note else ""
        )
        return " ".join(said.split())


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A case that was added, and the set as it was frozen with it."""

    case: Case
    frozen: Frozen


async def add_case(
    runtime: Runtime,
    agent: GovernedAgent[Any, Any],
    run_id: str,
    *,
    why: str,
    by: str,
    should: Mapping[str, JsonValue] | None = None,
    case_id: str | None = None,
) -> Grown:
    """Makes a run the newest case of the agent's set and freezes the set, with `why` in its history.

    What is right comes from the run's newest verdict, or from `should` as `by` says it where that names nothing. The
    case is written to the YAML first, then the lock, then the verdict is told its case: a crash between leaves a case
    that is not frozen or a verdict that does not know its case, and the same call again completes it.

    Raises NotFound for no such run, and BadInput where the set is not frozen otherwise, the run is a case already, or
    no case can be made of it; then nothing was changed.
    """
    if agent.trials is None:
        raise BadInput(f"agent {agent.name} has no eval set; pass `trials=Trials(cases=..., observe=...)` to govern()")
    path, today = agent.trials.cases, runtime.clock.now().date()
    reason = checked_reason(path, why)
    judged, verdict = await _judged(runtime, agent.name, run_id, should or {}, by)
    # On a thread, since it may have to wait for others.
    grown = await asyncio.to_thread(_grow, path, judged, verdict, reason, today, case_id)
    if verdict is not None:
        await runtime.database.write(used_in_case(verdict.verdict_id, grown.case.id))
    return grown


def _grow(
    path: Path, judged: Judged, verdict: Verdict | None, reason: str, today: dt.date, case_id: str | None
) -> Grown:
    begun = f"production run {judged.run_id},"
    with changing(path):
        loaded = load_set(path)
        there = next((case for case in loaded.cases if case.source.startswith(begun)), None)
        if there is None:
            check_frozen(loaded, lock_path(path))
            case = case_from_run(loaded, judged, today, case_id=case_id)
            append_case(path, case)
        else:
            case = _to_complete(loaded, path, there, judged, verdict)
        return Grown(case=case, frozen=freeze(path, reason, today))


def case_from_run(loaded: EvalSet, judged: Judged, today: dt.date, *, case_id: str | None = None) -> Case:
    """The case that a run makes in this set; without `case_id` it is called by the end of the run's id.

    Raises BadInput where the run's input is not text, `should` names nothing, or a field or a kind of value that the
    set's cases do not expect, and where `case_id` is taken or no name.
    """
    if not isinstance(judged.asked, str):
        raise BadInput(f"run {judged.run_id}: its input is not text only, and a case's is; write the case by hand")
    taken = {case.id for case in loaded.cases}
    if case_id in taken:
        raise BadInput(f"case id {case_id}: taken in {loaded.name}; give another with --id")
    _check_expectations(loaded, judged)
    try:
        return Case(
            id=_free_id(judged.run_id, taken) if case_id is None else case_id,
            input=judged.asked,
            expect=dict(judged.should),
            source=judged.source,
            date=today,
            tags=("production",),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise BadInput(f"run {judged.run_id} makes no case: {field}: {first['msg']}; correct it") from error


async def _judged(
    runtime: Runtime, agent: str, run_id: str, should: Mapping[str, JsonValue], by: str
) -> tuple[Judged, Verdict | None]:
    now = runtime.clock.now()
    run = await runtime.database.read(lambda conn: load_run(conn, run_id, now))
    if run.agent != agent or run.tenant == TENANT:
        what = "a trial of an eval set" if run.tenant == TENANT else f"of agent {run.agent}"
        raise BadInput(f"run {run.run_id} is {what}; name a run of {agent} in production")
    asked = await runtime.database.read(lambda conn: load_input(conn, run.run_id))
    verdicts = await runtime.database.read(lambda conn: verdicts_of(conn, run.run_id))
    newest = max(verdicts, key=lambda each: (each.at, each.verdict_id), default=None)
    if newest is None:
        return Judged(run_id=run.run_id, asked=asked, right=None, should=should, by=by, on=now.date()), None
    if newest.should and should and dict(newest.should) != dict(should):
        raise BadInput(
            f"run {run.run_id}: {newest.by} said already what it should have been; leave --should out, or mark the run "
            "anew with `handrail runs mark`"
        )
    judged = Judged(
        run_id=run.run_id,
        asked=asked,
        right=newest.right,
        should=newest.should or should,
        by=newest.by,
        on=newest.at.date(),
        note=newest.note,
    )
    return judged, newest


def _to_complete(loaded: EvalSet, path: Path, there: Case, judged: Judged, verdict: Verdict | None) -> Case:
    """The run's case in a set where an earlier call was cut short. Raises BadInput where none was."""
    known = BadInput(f"run {judged.run_id} is case {there.id} of {loaded.name} already; change that case by hand")
    if changes_since(loaded, lock_path(path)) != Difference(added=(there.id,)):
        check_frozen(loaded, lock_path(path))
        if verdict is None or verdict.case_id == there.id:
            raise known
    others = loaded.model_copy(update={"cases": tuple(case for case in loaded.cases if case is not there)})
    again = judged if verdict else replace(judged, on=there.date)
    if case_from_run(others, again, there.date, case_id=there.id).content_hash != there.content_hash:
        raise known
    return there


def _check_expectations(loaded: EvalSet, judged: Judged) -> None:
    if not judged.should:
        raise BadInput(
            f"run {judged.run_id}: nobody said yet what it should have been; give --should FIELD=VALUE for what counts "
            f"of {', '.join(sorted({name for case in loaded.cases for name in case.expect}))}"
        )
    check_expectations(loaded, judged.should, "should", "--should '{name}={value}'")


def _free_id(run_id: str, taken: set[str]) -> str:
    first = f"run-{run_id[-8:]}"
    return next(name for name in (first if n == 1 else f"{first}-{n}" for n in count(1)) if name not in taken)
