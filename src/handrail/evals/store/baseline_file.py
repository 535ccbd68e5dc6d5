"""A baseline in a file beside its eval set, for stores that do not have it, such as a CI runner's or a colleague's.

The format is JSON Lines, made for version control: a header that identifies the baseline, a line for each trial, and a
last line with what varies from run to run even if nothing changed (run ids, durations, costs). So a diff of two
versions shows the cases that changed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection

from handrail.evals.scorers.score import TrialScore
from handrail.kernel.db.operation import Operation, operation
from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file
from handrail.kernel.money import NanoUsd
from handrail.kernel.serialization import as_json

from .baselines import Baseline, import_baseline, load_baseline
from .eval_runs import EvalRunView, Trial, import_eval_run, load_eval_run

FORMAT = 1

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class BaselineFile:
    """A baseline, its eval run and its trials, and the file that holds them."""

    path: Path
    baseline: Baseline
    view: EvalRunView
    trials: tuple[Trial, ...]

    @property
    def rewrite_command(self) -> str:
        """The command that writes the file again."""
        return f"`handrail eval baseline {self.baseline.agent} --write {self.path}`"


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class _EvalRunHeader(_Record):
    eval_run_id: str
    cases: Count
    started_at: AwareDatetime
    ended_at: AwareDatetime


class _Header(_Record):
    handrail_baseline: int
    agent: str
    set_hash: str
    agent_hash: str | None
    by: str
    at: AwareDatetime
    trials: Annotated[int, Field(ge=1)]
    scored_by: dict[str, str]
    baseline_id: str
    eval_run: _EvalRunHeader


class _TrialRecord(_Record):
    """`agent_hash` is left out where it is the baseline's; `value` follows from the rest and is there for readers."""

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


class _RunColumns(_Record):
    run_id: list[str]
    duration_ns: list[Count]
    cost_nano_usd: list[Count]


_RecordT = TypeVar("_RecordT", bound=_Record)


def encode(file: BaselineFile, order: Sequence[str] = ()) -> bytes:
    """The content of the file, the same for the same baseline.

    Args:
        file: The baseline.
        order: The ids of cases, in the order of their trials; any other cases follow, sorted by id.
    """
    rank = {case_id: number for number, case_id in enumerate(order)}
    trials = sorted(file.trials, key=lambda trial: (rank.get(trial.case_id, len(rank)), trial.case_id, trial.trial))
    columns = {
        "run_id": [trial.run_id for trial in trials],
        "duration_ns": [trial.duration_ns for trial in trials],
        "cost_nano_usd": [trial.cost for trial in trials],
    }
    rows = [_header(file), *(_trial_record(trial, file.baseline.agent_hash) for trial in trials), columns]
    # ASCII only: some characters end a line in other programs, and some hide text from a reviewer.
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def decode(path: Path, body: bytes) -> BaselineFile:
    """Reads what `encode` wrote. Raises BadInput, with the line, for anything else, and for a newer format."""
    lines = body.splitlines()
    _check_format(path, lines[0] if lines else b"")
    header = _read(path, 1, lines[0], _Header)
    if len(lines) < 3:
        raise _invalid_line(path, len(lines), "there are no trials after this line")
    middle = list(enumerate(lines[1:-1], start=2))
    records = [(number, _read(path, number, line, _TrialRecord)) for number, line in middle]
    run_columns = _read(path, len(lines), lines[-1], _RunColumns)
    if {len(column) for column in (run_columns.run_id, run_columns.duration_ns, run_columns.cost_nano_usd)} != {
        len(records)
    }:
        raise _invalid_line(
            path, len(lines), f"its columns do not have {len(records)} entries, one for each trial above"
        )
    columns = zip(records, run_columns.run_id, run_columns.duration_ns, run_columns.cost_nano_usd, strict=True)
    trials = [_trial(record, run_id, ns, cost, header.agent_hash) for (_, record), run_id, ns, cost in columns]
    _check_trials(path, records, trials)
    baseline, view = _from_header(header)
    return BaselineFile(path=path, baseline=baseline, view=view, trials=tuple(trials))


def read_baseline_file(path: Path) -> BaselineFile:
    """Reads a baseline from a file. Raises BadInput, with the line, if it cannot be read."""
    try:
        body = path.read_bytes()
    except OSError as error:
        remedy = f"`handrail eval baseline AGENT --write {path}` writes one"
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    return decode(path, body)


def write_baseline_file(file: BaselineFile, order: Sequence[str]) -> None:
    """Replaces the file in one step, so that neither a reader nor a crash sees half of it. Raises BadInput."""
    path = file.path
    try:
        replace_file(path, encode(file, order))
    except OSError as error:
        remedy = f"add `--from {file.view.eval_run_id}` to write it elsewhere"
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); the baseline itself is stored: {remedy}"
        ) from error


def import_baseline_file(file: BaselineFile) -> Operation[None]:
    """An operation that stores the baseline of a file, its eval run and its trials, unless they are stored already.

    It raises BadInput if the store has the same eval run or baseline with different content.
    """
    return _import_baseline_file(file, import_eval_run(file.view, file.trials))


@operation
def _import_baseline_file(conn: Connection, file: BaselineFile, add_eval_run: Operation[None]) -> None:
    add_eval_run(conn)
    import_baseline(file.baseline)(conn)
    view, trials = load_eval_run(file.view.eval_run_id)(conn)
    baseline = load_baseline(file.baseline.baseline_id)(conn)
    stored = BaselineFile(path=file.path, baseline=baseline, view=view, trials=tuple(trials))
    if view.ended_at is None or encode(stored) != encode(file):
        raise BadInput(
            f"{file.path}: the store has eval run {view.eval_run_id} with different content; "
            f"restore the file, or write it again: {file.rewrite_command}"
        )


def _header(file: BaselineFile) -> dict[str, Any]:
    baseline, view = file.baseline, file.view
    assert view.ended_at is not None
    return {
        "handrail_baseline": FORMAT,
        "agent": baseline.agent,
        "set_hash": baseline.set_hash,
        "agent_hash": baseline.agent_hash,
        "by": baseline.by,
        "at": _utc(baseline.at),
        "trials": baseline.trials,
        "scored_by": _sorted(baseline.scored_by),
        "baseline_id": baseline.baseline_id,
        "eval_run": {
            "eval_run_id": view.eval_run_id,
            "cases": view.cases,
            "started_at": _utc(view.started_at),
            "ended_at": _utc(view.ended_at),
        },
    }


def _trial_record(trial: Trial, agent_hash: str | None) -> dict[str, Any]:
    score = trial.score
    return {
        "case": trial.case_id,
        "trial": trial.trial,
        "value": trial.value,
        "fields": _sorted(score.fields),
        "scores": _sorted(score.scores),
        "notes": _sorted(score.notes),
        "outcome": trial.outcome,
        "path": trial.path,
        "error": trial.error,
        "observed": _sorted(trial.observed),
        "model": trial.model,
        **({} if trial.agent_hash == agent_hash else {"agent_hash": trial.agent_hash}),
    }


def _from_header(header: _Header) -> tuple[Baseline, EvalRunView]:
    run = header.eval_run
    baseline = Baseline(
        baseline_id=header.baseline_id,
        agent=header.agent,
        set_hash=header.set_hash,
        agent_hash=header.agent_hash,
        eval_run_id=run.eval_run_id,
        by=header.by,
        at=header.at,
        trials=header.trials,
        scored_by=header.scored_by,
    )
    view = EvalRunView(
        eval_run_id=run.eval_run_id,
        agent=header.agent,
        set_hash=header.set_hash,
        cases=run.cases,
        started_at=run.started_at,
        ended_at=run.ended_at,
        scored_by=header.scored_by,
    )
    return baseline, view


def _trial(record: _TrialRecord, run_id: str, duration_ns: int, cost: int, agent_hash: str | None) -> Trial:
    return Trial(
        case_id=record.case,
        trial=record.trial,
        run_id=run_id,
        outcome=record.outcome,
        path=record.path,
        score=TrialScore(record.fields, record.scores, record.notes),
        observed=record.observed,
        duration_ns=duration_ns,
        cost=NanoUsd(cost),
        model=record.model,
        agent_hash=record.agent_hash if "agent_hash" in record.model_fields_set else agent_hash,
        error=record.error,
    )


def _check_format(path: Path, line: bytes) -> None:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    number = header.get("handrail_baseline") if isinstance(header, dict) else None
    if not isinstance(number, int):
        raise BadInput(f"{path}:1: not a baseline; `handrail eval baseline AGENT --write {path}` writes one")
    if number > FORMAT:
        raise BadInput(
            f"{path}:1: written by a newer Handrail (format {number}, this one reads {FORMAT}); upgrade Handrail"
        )


def _check_trials(path: Path, records: Sequence[tuple[int, _TrialRecord]], trials: Sequence[Trial]) -> None:
    first_lines: dict[tuple[str, int], int] = {}
    for (number, record), trial in zip(records, trials, strict=True):
        if record.value != trial.value:
            raise _invalid_line(path, number, f"value: {record.value}, but its fields and scores give {trial.value}")
        if (first := first_lines.setdefault((trial.case_id, trial.trial), number)) != number:
            raise _invalid_line(path, number, f"trial {trial.trial} of case {trial.case_id} is on line {first} already")


def _read(path: Path, number: int, line: bytes, kind: type[_RecordT]) -> _RecordT:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise _invalid_line(path, number, f"{field}: {problem['msg']}" if field else problem["msg"]) from error


def _invalid_line(path: Path, number: int, problem: str) -> BadInput:
    return BadInput(f"{path}:{number}: {problem}; restore the file from version control, or write it again")


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _sorted(value: Any) -> Any:
    """The JSON value as the store has it, with sorted keys, so that equal content is written the same."""
    return json.loads(json.dumps(json.loads(as_json(value)), sort_keys=True))
