"""A baseline as a file that stands beside its set, for a store that has none: a CI runner's, a colleague's.

JSON Lines: what it is a baseline of, then a line for each trial, then what varies from run to run even where nothing
changed (run ids, durations, costs) in the last line. So a diff of two versions shows the cases that changed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection

from handrail.evals.scorers.score import Verdict
from handrail.kernel.db.group_writer import Op
from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import as_json

from .baselines import Baseline, bring_baseline, load_baseline
from .eval_runs import EvalRunView, Trial, bring_eval_run, load_eval_run

FORMAT = 1

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A baseline, its eval run and its trials, and the file that holds them."""

    path: Path
    baseline: Baseline
    view: EvalRunView
    trials: tuple[Trial, ...]

    @property
    def remedy(self) -> str:
        """The command that writes the file anew."""
        return f"`handrail eval baseline {self.baseline.agent} --write {self.path}`"


class _Line(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class _EvalRun(_Line):
    eval_run_id: str
    cases: Count
    started_at: AwareDatetime
    ended_at: AwareDatetime


class _Head(_Line):
    handrail_baseline: int
    agent: str
    set_hash: str
    agent_hash: str | None
    by: str
    at: AwareDatetime
    trials: Annotated[int, Field(ge=1)]
    scored_by: dict[str, str]
    baseline_id: str
    eval_run: _EvalRun


class _Tried(_Line):
    """`agent_hash` is left out where it is the baseline's; `value` is there for readers and follows from the rest."""

    case: str
    trial: Annotated[int, Field(ge=1)]
    value: float
    fields: dict[str, bool]
    scores: dict[str, float]
    notes: dict[str, str]
    outcome: str
    path: str | None
    error: str | None
    observed: dict[str, Any]
    model: str | None
    agent_hash: str | None = None


class _Took(_Line):
    run_id: list[str]
    duration_ns: list[Count]
    cost_nano_usd: list[Count]


_LineT = TypeVar("_LineT", bound=_Line)


def encode(carried: Carried, order: Sequence[str] = ()) -> bytes:
    """The file's content, the same for the same baseline: trials by case, in `order`, then by number."""
    place = {case_id: number for number, case_id in enumerate(order)}
    trials = sorted(carried.trials, key=lambda each: (place.get(each.case_id, len(place)), each.case_id, each.trial))
    took = {
        "run_id": [each.run_id for each in trials],
        "duration_ns": [each.duration_ns for each in trials],
        "cost_nano_usd": [each.cost for each in trials],
    }
    rows = [_head(carried), *(_tried(each, carried.baseline.agent_hash) for each in trials), took]
    # Escaped: some characters end a line in other programs, and some hide from a reviewer what stands there.
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def decode(path: Path, body: bytes) -> Carried:
    """What `encode` wrote. Raises BadInput, with the line, for what it did not write, and for a newer format."""
    lines = body.splitlines()
    _check_format(path, lines[0] if lines else b"")
    head = _read(path, 1, lines[0], _Head)
    if len(lines) < 3:
        raise _broken(path, len(lines), "there are no trials after this line")
    middle = list(enumerate(lines[1:-1], start=2))
    tried = [(number, _read(path, number, line, _Tried)) for number, line in middle]
    took = _read(path, len(lines), lines[-1], _Took)
    if {len(column) for column in (took.run_id, took.duration_ns, took.cost_nano_usd)} != {len(tried)}:
        raise _broken(path, len(lines), f"its columns are not of {len(tried)} trials, as many as stand above")
    columns = zip(tried, took.run_id, took.duration_ns, took.cost_nano_usd, strict=True)
    trials = [_trial(each, run_id, ns, cost, head.agent_hash) for (_, each), run_id, ns, cost in columns]
    _check_trials(path, tried, trials)
    baseline, view = _of(head)
    return Carried(path=path, baseline=baseline, view=view, trials=tuple(trials))


def read_baseline(path: Path) -> Carried:
    """The baseline in a file. Raises BadInput, with the place, where it cannot be read."""
    try:
        body = path.read_bytes()
    except OSError as error:
        remedy = f"`handrail eval baseline AGENT --write {path}` writes one"
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    return decode(path, body)


def write_baseline(carried: Carried, order: Sequence[str]) -> None:
    """Writes the baseline to its file in one step: a reader or a crash never meets half of it. Raises BadInput."""
    path = carried.path
    try:
        replace_file(path, encode(carried, order))
    except OSError as error:
        remedy = f"add `--from {carried.view.eval_run_id}` to write it elsewhere"
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); the baseline is in the store: {remedy}"
        ) from error


def bring_in(carried: Carried) -> Op:
    """An op that keeps the baseline, its eval run and its trials in the store; what is there already stays.

    Raises BadInput where the store has the same eval run or baseline with another content.
    """

    def op(conn: Connection) -> None:
        bring_eval_run(carried.view, carried.trials)(conn)
        bring_baseline(carried.baseline)(conn)
        view, trials = load_eval_run(conn, carried.view.eval_run_id)
        baseline = load_baseline(conn, carried.baseline.baseline_id)
        there = Carried(path=carried.path, baseline=baseline, view=view, trials=tuple(trials))
        if view.ended_at is None or encode(there) != encode(carried):
            raise BadInput(
                f"{carried.path}: the store has eval run {view.eval_run_id} with another content than the file; "
                f"restore the file, or write it anew: {carried.remedy}"
            )

    return op


def _head(carried: Carried) -> dict[str, Any]:
    baseline, view = carried.baseline, carried.view
    assert view.ended_at is not None
    return {
        "handrail_baseline": FORMAT,
        "agent": baseline.agent,
        "set_hash": baseline.set_hash,
        "agent_hash": baseline.agent_hash,
        "by": baseline.by,
        "at": _moment(baseline.at),
        "trials": baseline.trials,
        "scored_by": _sorted(baseline.scored_by),
        "baseline_id": baseline.baseline_id,
        "eval_run": {
            "eval_run_id": view.eval_run_id,
            "cases": view.cases,
            "started_at": _moment(view.started_at),
            "ended_at": _moment(view.ended_at),
        },
    }


def _tried(trial: Trial, agent_hash: str | None) -> dict[str, Any]:
    verdict = trial.verdict
    return {
        "case": trial.case_id,
        "trial": trial.trial,
        "value": trial.value,
        "fields": _sorted(verdict.fields),
        "scores": _sorted(verdict.scores),
        "notes": _sorted(verdict.notes),
        "outcome": trial.outcome,
        "path": trial.path,
        "error": trial.error,
        "observed": _sorted(trial.observed),
        "model": trial.model,
        **({} if trial.agent_hash == agent_hash else {"agent_hash": trial.agent_hash}),
    }


def _of(head: _Head) -> tuple[Baseline, EvalRunView]:
    run = head.eval_run
    baseline = Baseline(
        baseline_id=head.baseline_id,
        agent=head.agent,
        set_hash=head.set_hash,
        agent_hash=head.agent_hash,
        eval_run_id=run.eval_run_id,
        by=head.by,
        at=head.at,
        trials=head.trials,
        scored_by=head.scored_by,
    )
    view = EvalRunView(
        eval_run_id=run.eval_run_id,
        agent=head.agent,
        set_hash=head.set_hash,
        cases=run.cases,
        started_at=run.started_at,
        ended_at=run.ended_at,
        scored_by=head.scored_by,
    )
    return baseline, view


def _trial(tried: _Tried, run_id: str, duration_ns: int, cost: int, agent_hash: str | None) -> Trial:
    return Trial(
        case_id=tried.case,
        trial=tried.trial,
        run_id=run_id,
        outcome=tried.outcome,
        path=tried.path,
        verdict=Verdict(tried.fields, tried.scores, tried.notes),
        observed=tried.observed,
        duration_ns=duration_ns,
        cost=NanoUsd(cost),
        model=tried.model,
        agent_hash=tried.agent_hash if "agent_hash" in tried.model_fields_set else agent_hash,
        error=tried.error,
    )


def _check_format(path: Path, line: bytes) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    number = found.get("handrail_baseline") if isinstance(found, dict) else None
    if not isinstance(number, int):
        raise BadInput(f"{path}:1: not a baseline; `handrail eval baseline AGENT --write {path}` writes one")
    if number > FORMAT:
        raise BadInput(f"{path}:1: written by a newer Handrail (format {number}, this one reads {FORMAT}); upgrade it")


def _check_trials(path: Path, tried: Sequence[tuple[int, _Tried]], trials: Sequence[Trial]) -> None:
    first: dict[tuple[str, int], int] = {}
    for (number, line), trial in zip(tried, trials, strict=True):
        if line.value != trial.value:
            raise _broken(path, number, f"value: {line.value} where its fields and scores make {trial.value}")
        if (place := first.setdefault((trial.case_id, trial.trial), number)) != number:
            raise _broken(path, number, f"trial {trial.trial} of case {trial.case_id} stands on line {place} already")


def _read(path: Path, number: int, line: bytes, kind: type[_LineT]) -> _LineT:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise _broken(path, number, f"{field}: {problem['msg']}" if field else problem["msg"]) from error


def _broken(path: Path, number: int, problem: str) -> BadInput:
    return BadInput(f"{path}:{number}: {problem}; restore the file from version control, or write it anew")


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _sorted(found: Any) -> Any:
    """As the store keeps it, in an order of its own: equal content is written alike."""
    return json.loads(json.dumps(json.loads(as_json(found)), sort_keys=True))
