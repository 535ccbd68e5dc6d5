"""Baselines and the gate at work: what an agent has to beat, and whether it does."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from handrail.kernel import BadInput, HandrailError, new_id
from handrail.runs import GovernedAgent, Runtime

from .baselines import Baseline, GateView, add_baseline, add_gate, list_baselines, newest_baseline
from .rule import GateVerdict, case_scores, plain_rule
from .running import EvalReport, frozen_set, run_evals
from .sets import Case
from .store import Trial, load_eval_run

OnTrial = Callable[[Case, Trial], None]


class NoBaseline(HandrailError):
    """There is nothing to compare with: set a baseline for the set as it is."""

    code: ClassVar[str] = "no_baseline"


@dataclass(frozen=True, kw_only=True)
class Gated:
    """What the gate said, of which eval run, against which baseline; `agent_hash` is the candidate's."""

    verdict: GateVerdict
    baseline: Baseline
    report: EvalReport
    agent_hash: str | None


async def set_baseline(
    runtime: Runtime,
    agent: GovernedAgent[Any, Any],
    *,
    by: str,
    at_once: int = 1,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> Baseline:
    """Runs the agent on its frozen set and makes that the baseline. Raises what `run_evals` raises.

    Stopped between the two, it leaves a complete eval run that `promote` takes.
    """
    report = await run_evals(runtime, agent, at_once=at_once, on_trial=on_trial)
    return await _point_at(runtime, agent.name, report.set_hash, report.eval_run_id, report.trials, by)


async def promote(runtime: Runtime, agent: GovernedAgent[Any, Any], eval_run_id: str, *, by: str) -> Baseline:
    """Makes an eval run that is there the baseline.

    Raises NotFound, and BadInput where it is incomplete, another agent's or of another state of the set.
    """
    loaded, _ = frozen_set(agent)
    view, trials = await runtime.database.read(lambda conn: load_eval_run(conn, eval_run_id))
    remedy = f"`handrail eval baseline {agent.name}` runs the set and makes a baseline of it"
    if view.agent != agent.name:
        raise BadInput(f"eval run {eval_run_id} is of agent {view.agent}, not of {agent.name}; {remedy}")
    if view.ended_at is None:
        raise BadInput(f"eval run {eval_run_id} has {len(trials)} of {view.cases} trials and is not complete; {remedy}")
    if view.set_hash != loaded.content_hash:
        states = f"{view.set_hash[:12]}, now {loaded.content_hash[:12]}"
        raise BadInput(f"eval run {eval_run_id}: the set has changed since it ran ({states}); {remedy}")
    return await _point_at(runtime, agent.name, view.set_hash, eval_run_id, trials, by)


async def gate(
    runtime: Runtime,
    agent: GovernedAgent[Any, Any],
    *,
    at_once: int = 1,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> Gated:
    """Runs the candidate on the frozen set, compares it with the newest baseline of that set and keeps the verdict.

    A run that fails in a trial is a failed case. Raises NoBaseline, before any trial, where there is nothing to
    compare with, and what `run_evals` raises where the trials could not be done: then there is no verdict.
    """
    loaded, _ = frozen_set(agent)
    baseline = await _baseline_for(runtime, agent.name, loaded.content_hash)
    report = await run_evals(runtime, agent, at_once=at_once, on_trial=on_trial)
    _, before = await runtime.database.read(lambda conn: load_eval_run(conn, baseline.eval_run_id))
    verdict = plain_rule(_scores(before), _scores(report.trials))
    now = runtime.clock.now()
    kept = GateView(
        gate_id=new_id("gate", now),
        agent=agent.name,
        baseline_id=baseline.baseline_id,
        eval_run_id=report.eval_run_id,
        verdict=verdict,
        at=now,
    )
    await runtime.database.write(add_gate(kept))
    return Gated(verdict=verdict, baseline=baseline, report=report, agent_hash=agent_hash_of(report.trials))


def agent_hash_of(trials: Sequence[Trial]) -> str | None:
    """The fingerprint that most of the trials which reached a model have; None where none did.

    An agent that draws its prompt or its settings has several.
    """
    seen = Counter(trial.agent_hash for trial in trials if trial.agent_hash is not None)
    return min(seen, key=lambda found: (-seen[found], found), default=None)


async def _point_at(
    runtime: Runtime, agent: str, set_hash: str, eval_run_id: str, trials: Sequence[Trial], by: str
) -> Baseline:
    now = runtime.clock.now()
    baseline = Baseline(
        baseline_id=new_id("base", now),
        agent=agent,
        set_hash=set_hash,
        agent_hash=agent_hash_of(trials),
        eval_run_id=eval_run_id,
        by=by,
        at=now,
    )
    await runtime.database.write(add_baseline(baseline))
    return baseline


async def _baseline_for(runtime: Runtime, agent: str, set_hash: str) -> Baseline:
    found = await runtime.database.read(lambda conn: newest_baseline(conn, agent, set_hash))
    if found is not None:
        return found
    others = await runtime.database.read(lambda conn: list_baselines(conn, agent, 1))
    if not others:
        raise NoBaseline(
            f"agent {agent} has no baseline; run `handrail eval baseline {agent}` with the agent as it is in production"
        )
    [last] = others
    raise NoBaseline(
        f"agent {agent}: the set has changed since its baseline of {last.at:%Y-%m-%d} ({last.set_hash[:12]}, now "
        f"{set_hash[:12]}); run `handrail eval baseline {agent}` with the agent as it is in production, then the gate"
    )


def _scores(trials: Sequence[Trial]) -> Any:
    return case_scores((trial.case_id, trial.verdict.passed) for trial in trials)
