"""What the diff of two eval runs is made of, read from the store: the trials, outputs, trajectories and prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from handrail.evals.store.baselines import newest_baseline
from handrail.evals.store.eval_runs import EvalRunView, Trial, agent_hash_of, list_eval_runs, load_eval_run
from handrail.kernel.errors import BadInput, NotFound
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import OutcomeView, last_outcomes, load_prompt, load_run
from handrail.traces.model import Span
from handrail.traces.store.spans import load_payload, load_trace

from .alignment import Alignment, Piece, Step, align, words_apart
from .case_diff import CaseDiff, Diff, compare_trials, text_diff

BASELINE, NEWEST = "baseline", "newest"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two eval runs and what separates them.

    `prompt` are the lines of a unified diff of the prompts as written, none where they are the same or unknown.
    `prompt_known` is False where the runs of a side are not in this store, as those of a baseline from a file. `agents`
    are the fingerprints of the whole agents, `models` the models that answered; each before and after.
    """

    before: EvalRunView
    after: EvalRunView
    diff: Diff
    prompt: tuple[str, ...]
    models: tuple[tuple[str, ...], tuple[str, ...]]
    agents: tuple[str | None, str | None]
    prompt_known: bool = True


@dataclass(frozen=True, kw_only=True)
class Close:
    """One case's two trials in full: the outputs word by word, and the trajectories step by step."""

    case: CaseDiff
    output: tuple[Piece, ...]
    trajectory: Alignment


async def compare_eval_runs(runtime: Runtime, before: str, after: str, agent: str | None = None) -> Compared:
    """Two eval runs by their ids; `newest` is the agent's newest, `baseline` what its gate compares with.

    Raises NotFound, and BadInput where they are of two agents or no case is in both.
    """
    now = runtime.clock.now()
    return await runtime.database.read(lambda conn: _compared(conn, before, after, agent, now))


async def look_closer(runtime: Runtime, case: CaseDiff) -> Close:
    """The case's two shown trials, from their runs' outcomes and traces; where those of one are not in this store, by
    what was observed and without steps.
    """
    now = runtime.clock.now()

    def load(conn: Connection) -> Close:
        texts = _outputs(conn, case.shown)
        before, after = (texts.get(each.run_id, _json(each.observed)) for each in case.shown)
        steps = [_trajectory(conn, each, now) for each in case.shown]
        known = [each for each in steps if each is not None]
        trajectory = align(*known) if len(known) == len(steps) else align([], [])
        return Close(case=case, output=words_apart(before, after), trajectory=trajectory)

    return await runtime.database.read(load)


def _compared(conn: Connection, before: str, after: str, agent: str | None, now: datetime) -> Compared:
    second = _found(conn, after, agent, None)
    first = _found(conn, before, agent or second.agent, second)
    if first.agent != second.agent:
        raise BadInput(f"eval runs of two agents, {first.agent} and {second.agent}; compare two of one agent")
    sides = [load_eval_run(conn, each.eval_run_id)[1] for each in (first, second)]
    diff = compare_trials(sides[0], sides[1], _outputs(conn, [*sides[0], *sides[1]]))
    if not diff.cases:
        raise BadInput(f"{first.eval_run_id} and {second.eval_run_id} have no case in common that both could judge")
    agents = agent_hash_of(sides[0]), agent_hash_of(sides[1])
    prompts = [_prompt(conn, side, agent, now) for side, agent in zip(sides, agents, strict=True)]
    return Compared(
        before=first,
        after=second,
        diff=diff,
        prompt=text_diff(prompts[0], prompts[1]) if prompts[0] is not None and prompts[1] is not None else (),
        models=(_models(sides[0]), _models(sides[1])),
        agents=agents,
        prompt_known=None not in prompts,
    )


def _found(conn: Connection, asked: str, agent: str | None, beside: EvalRunView | None) -> EvalRunView:
    if asked == NEWEST:
        runs = list_eval_runs(conn, agent, 1)
        if not runs:
            raise NotFound(f"no eval run{f' of {agent}' if agent else ''} yet; `handrail eval run AGENT` makes one")
        return runs[0]
    if asked == BASELINE:
        if beside is None:
            raise BadInput("the baseline stands on the left: `handrail eval diff baseline newest`")
        baseline = newest_baseline(conn, beside.agent, beside.set_hash)
        if baseline is None:
            remedy = f"`handrail eval baseline {beside.agent}` sets one"
            raise NotFound(f"agent {beside.agent} has no baseline for the set of {beside.eval_run_id}; {remedy}")
        asked = baseline.eval_run_id
    return load_eval_run(conn, asked)[0]


def _prompt(conn: Connection, trials: Sequence[Trial], agent: str | None, now: datetime) -> str | None:
    """The template of most of the trials that reached a model; None where no run tells it."""
    run_id = next((each.run_id for each in trials if agent is not None and each.agent_hash == agent), None)
    if run_id is None:
        return None
    try:
        found = load_run(conn, run_id, now).fingerprint
    except NotFound:
        return None
    return load_prompt(conn, found.template) if found else None


def _models(trials: Sequence[Trial]) -> tuple[str, ...]:
    return tuple(sorted({each.model for each in trials if each.model is not None}))


def _outputs(conn: Connection, trials: Sequence[Trial]) -> dict[str, str]:
    """What each run gave, as text: its output, else what it said instead.

    Of a case with a run that is not in this store it is what was observed, of all its trials, so that like is compared
    with like.
    """
    said = last_outcomes(conn, [each.run_id for each in trials if each.run_id])
    unknown = {each.case_id for each in trials if each.run_id and each.run_id not in said}
    return {
        each.run_id: _json(each.observed) if each.case_id in unknown else _as_text(said[each.run_id])
        for each in trials
        if each.run_id
    }


def _as_text(outcome: OutcomeView) -> str:
    body = outcome.body
    if (output := body.get("output")) is not None:
        return output if isinstance(output, str) else _json(output)
    said = {name: body[name] for name in ("reason", "fault", "proposals", "approvals", "refusal") if body.get(name)}
    return f"[{outcome.type}] {_json(_without_ids(said)) if said else body.get('message', '')}"


def _trajectory(conn: Connection, trial: Trial, now: datetime) -> list[Step] | None:
    """The trial's steps, none where it was no run; None where its run is not in this store."""
    if not trial.run_id:
        return []
    try:
        run = load_run(conn, trial.run_id, now)
        _, spans = load_trace(conn, run.trace_id, run.tenant)
    except NotFound:
        return None
    own = (span for span in spans if span.run_id == trial.run_id and span.kind != "agent")
    return [_step(span, load_payload(conn, span.trace_id, span.span_id) or {}) for span in own]


def _step(span: Span, said: Mapping[str, Any]) -> Step:
    if span.kind == "model":
        return Step(kind="model", name="turn", gave=_turn(said.get("response")), error=span.error_type)
    name = span.name.removeprefix("execute_tool ")
    asked, gave = said.get("arguments", said.get("input")), said.get("result", said.get("output"))
    return Step(
        kind="tool" if span.kind == "tool" else "step", name=name, asked=asked, gave=gave, error=span.error_type
    )


def _turn(response: Any) -> Any:
    """What a model said: texts, and calls with their arguments, without what is new in every response."""
    turn: list[Any] = []
    for part in response if isinstance(response, list) else ():
        match part:
            case {"part_kind": "tool-call", "tool_name": str(name)}:
                arguments = part.get("args")
                turn.append({"call": name, "arguments": _parsed(arguments)})
            case {"part_kind": "text", "content": str(text)}:
                turn.append(text)
    return turn or None


def _parsed(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _without_ids(value: Any) -> Any:
    """Without ids and times, which differ between any two runs."""
    if isinstance(value, dict):
        return {
            name: _without_ids(each)
            for name, each in value.items()
            if not name.endswith(("_id", "_at")) and name not in ("digest", "claim")
        }
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, default=str)
