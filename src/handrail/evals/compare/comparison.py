"""Compares two stored eval runs: their trials and prompts, and a case's outputs and trajectories in detail."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from handrail.evals.store.baselines import newest_baseline
from handrail.evals.store.eval_runs import EvalRunView, Trial, list_eval_runs, load_eval_run, most_common_agent_hash
from handrail.kernel.db.operation import operation
from handrail.kernel.errors import BadInput, NotFound
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import OutcomeView, last_outcomes, load_prompt, load_run
from handrail.traces.model import Span
from handrail.traces.store.spans import load_payload, load_trace

from .alignment import Alignment, TextPiece, TrajectoryStep, align_steps, diff_words
from .case_diff import CaseDiff, EvalRunDiff, compare_trials, diff_lines

BASELINE, NEWEST = "baseline", "newest"


@dataclass(frozen=True, kw_only=True)
class EvalRunComparison:
    """Two eval runs and how they differ.

    `prompt` has the lines of a unified diff of the prompt templates, none when they are equal or unknown.
    `prompt_known` is False when this database lacks the runs of one side, such as those of a baseline from a file.
    `agents` are the fingerprints of the agents and `models` the models that answered, each before and after.
    """

    before: EvalRunView
    after: EvalRunView
    diff: EvalRunDiff
    prompt: tuple[str, ...]
    models: tuple[tuple[str, ...], tuple[str, ...]]
    agents: tuple[str | None, str | None]
    prompt_known: bool = True


@dataclass(frozen=True, kw_only=True)
class CaseDetail:
    """The two example trials of a case in full: the outputs word by word, and the trajectories step by step."""

    case: CaseDiff
    output: tuple[TextPiece, ...]
    trajectory: Alignment


async def compare_eval_runs(runtime: Runtime, before: str, after: str, agent: str | None = None) -> EvalRunComparison:
    """Compares two eval runs.

    Args:
        runtime: Where they are stored.
        before: An eval run's id, or `baseline` for the baseline that the gate would use.
        after: An eval run's id, or `newest`.
        agent: Whose newest eval run; of any agent when None.

    Raises:
        NotFound: There is no such eval run or baseline.
        BadInput: They are of different agents, or have no case in common.
    """
    now = runtime.clock.now()
    return await runtime.database.read(_compare(before, after, agent, now))


async def load_case_detail(runtime: Runtime, case: CaseDiff) -> CaseDetail:
    """The outputs and trajectories of a case's example trials.

    When a run is not in this database, its output is what was observed, and there are no steps.
    """
    now = runtime.clock.now()
    return await runtime.database.read(_load_detail(case, now))


@operation
def _load_detail(conn: Connection, case: CaseDiff, now: datetime) -> CaseDetail:
    outputs = _outputs(conn, case.example_trials)
    before, after = (outputs.get(trial.run_id, _to_json(trial.observed)) for trial in case.example_trials)
    trajectories = [_trajectory(conn, trial, now) for trial in case.example_trials]
    known = [steps for steps in trajectories if steps is not None]
    alignment = align_steps(*known) if len(known) == len(trajectories) else align_steps([], [])
    return CaseDetail(case=case, output=diff_words(before, after), trajectory=alignment)


@operation
def _compare(conn: Connection, before: str, after: str, agent: str | None, now: datetime) -> EvalRunComparison:
    second = _resolve(conn, after, agent, None)
    first = _resolve(conn, before, agent or second.agent, second)
    if first.agent != second.agent:
        raise BadInput(f"eval runs of two agents, {first.agent} and {second.agent}; compare two of the same agent")
    trials = [load_eval_run(view.eval_run_id)(conn)[1] for view in (first, second)]
    diff = compare_trials(trials[0], trials[1], _outputs(conn, [*trials[0], *trials[1]]))
    if not diff.cases:
        raise BadInput(f"{first.eval_run_id} and {second.eval_run_id} have no case in common that both could score")
    agents = most_common_agent_hash(trials[0]), most_common_agent_hash(trials[1])
    prompts = [_prompt(conn, side, agent_hash, now) for side, agent_hash in zip(trials, agents, strict=True)]
    return EvalRunComparison(
        before=first,
        after=second,
        diff=diff,
        prompt=diff_lines(prompts[0], prompts[1]) if prompts[0] is not None and prompts[1] is not None else (),
        models=(_models(trials[0]), _models(trials[1])),
        agents=agents,
        prompt_known=None not in prompts,
    )


def _resolve(conn: Connection, name: str, agent: str | None, other: EvalRunView | None) -> EvalRunView:
    """The eval run of an id, `newest` or `baseline`; `other` is the one that a baseline is compared with."""
    if name == NEWEST:
        runs = list_eval_runs(agent, 1)(conn)
        if not runs:
            raise NotFound(f"no eval run{f' of {agent}' if agent else ''} yet; `handrail eval run AGENT` starts one")
        return runs[0]
    if name == BASELINE:
        if other is None:
            raise BadInput("the baseline has to come first: `handrail eval diff baseline newest`")
        baseline = newest_baseline(other.agent, other.set_hash)(conn)
        if baseline is None:
            raise NotFound(
                f"agent {other.agent} has no baseline for the eval set of {other.eval_run_id}; "
                f"`handrail eval baseline {other.agent}` creates one"
            )
        name = baseline.eval_run_id
    return load_eval_run(name)(conn)[0]


def _prompt(conn: Connection, trials: Sequence[Trial], agent_hash: str | None, now: datetime) -> str | None:
    """The prompt template of a trial of this agent; None when this database does not have its run."""
    run_id = next((trial.run_id for trial in trials if agent_hash is not None and trial.agent_hash == agent_hash), None)
    if run_id is None:
        return None
    try:
        fingerprint = load_run(run_id, now)(conn).fingerprint
    except NotFound:
        return None
    return load_prompt(fingerprint.template)(conn) if fingerprint else None


def _models(trials: Sequence[Trial]) -> tuple[str, ...]:
    return tuple(sorted({trial.model for trial in trials if trial.model is not None}))


def _outputs(conn: Connection, trials: Sequence[Trial]) -> dict[str, str]:
    """The output of each run as text, by its id.

    When this database lacks one run of a case, all of the case's trials have what was observed instead, so that like
    is compared with like.
    """
    outcomes = last_outcomes([trial.run_id for trial in trials if trial.run_id])(conn)
    incomplete = {trial.case_id for trial in trials if trial.run_id and trial.run_id not in outcomes}
    return {
        trial.run_id: _to_json(trial.observed) if trial.case_id in incomplete else _output_text(outcomes[trial.run_id])
        for trial in trials
        if trial.run_id
    }


def _output_text(outcome: OutcomeView) -> str:
    """The output, or for an outcome that has none, its type with what explains it."""
    body = outcome.body
    if (output := body.get("output")) is not None:
        return output if isinstance(output, str) else _to_json(output)
    names = ("reason", "fault", "proposals", "approvals", "refusal")
    details = {name: body[name] for name in names if body.get(name)}
    return f"[{outcome.type}] {_to_json(_without_ids(details)) if details else body.get('message', '')}"


def _trajectory(conn: Connection, trial: Trial, now: datetime) -> list[TrajectoryStep] | None:
    """The trial's steps, none for a trial without a run; None when its run is not in this database."""
    if not trial.run_id:
        return []
    try:
        run = load_run(trial.run_id, now)(conn)
        _, spans = load_trace(run.trace_id, run.tenant)(conn)
    except NotFound:
        return None
    own = (span for span in spans if span.run_id == trial.run_id and span.kind != "agent")
    return [_to_step(span, load_payload(span.trace_id, span.span_id)(conn) or {}) for span in own]


def _to_step(span: Span, payload: Mapping[str, Any]) -> TrajectoryStep:
    if span.kind == "model":
        turn = _model_turn(payload.get("response"))
        return TrajectoryStep(kind="model", name="turn", output=turn, error=span.error_type)
    return TrajectoryStep(
        kind="tool" if span.kind == "tool" else "step",
        name=span.name.removeprefix("execute_tool "),
        input=payload.get("arguments", payload.get("input")),
        output=payload.get("result", payload.get("output")),
        error=span.error_type,
    )


def _model_turn(response: Any) -> Any:
    """A model's texts and tool calls, without ids, times and usage, which differ between any two responses."""
    turn: list[Any] = []
    for part in response if isinstance(response, list) else ():
        match part:
            case {"part_kind": "tool-call", "tool_name": str(name)}:
                turn.append({"call": name, "arguments": _parse_arguments(part.get("args"))})
            case {"part_kind": "text", "content": str(text)}:
                turn.append(text)
    return turn or None


def _parse_arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _without_ids(value: Any) -> Any:
    """A JSON value without ids and times, which differ between any two runs."""
    if isinstance(value, dict):
        return {
            name: _without_ids(item)
            for name, item in value.items()
            if not name.endswith(("_id", "_at")) and name not in ("digest", "claim")
        }
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, default=str)
