"""Baselines: the eval run that a change is compared with."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from handrail.evals.errors import NoBaseline, TooManyErrors
from handrail.evals.runner.eval_run import OnTrial, load_frozen_set, open_eval_run
from handrail.evals.runner.response_cache import ResponseCache
from handrail.evals.scorers.fingerprint import changed_scorers, scorer_hashes
from handrail.evals.spec import EvalSpec
from handrail.evals.store.baselines import Baseline, add_baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run, most_common_agent_hash
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.runs.runtime import Runtime, use_runtime

from .decision_rule import flip_rate, values_by_case
from .trial_plan import BASELINE_TRIALS, choose_plan

MAX_ERROR_SHARE = Fraction(5, 100)
"""The share of trials that the infrastructure may fail; above it, neither a baseline nor a verdict is possible."""


async def create_baseline(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    *,
    by: str,
    trials: int | None = None,
    concurrency: int = 1,
    responses: ResponseCache | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> Baseline:
    """Runs the agent on its frozen eval set and makes that eval run the baseline.

    A crash between the last trial and the baseline leaves a complete eval run, which `baseline_from_eval_run` can use.

    Args:
        runtime: Where the trials and the baseline are stored.
        spec: The agent as it is in production, and what it is evaluated by.
        by: Who creates the baseline.
        trials: Trials of each case; None for as many as the measured flip rate requires.
        concurrency: How many trials run side by side, at most.
        responses: Recorded responses, used in place of the model where they have the request.
        on_trial: Called with each trial once it is committed.

    Raises:
        TooManyErrors: The infrastructure failed more than 5% of the trials.
        BadInput: `trials` is below 1, or `open_eval_run` raises it.
    """
    if trials is not None and trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    with use_runtime(runtime):
        scorers = scorer_hashes(spec)
        options: dict[str, Any] = {"concurrency": concurrency, "responses": responses, "on_trial": on_trial}
        async with open_eval_run(runtime, spec, **options) as eval_run:
            committed = check_trial_errors(await eval_run.run_trials(trials or BASELINE_TRIALS))
            if trials is None and (flip := measured_flip_rate(committed)):
                plan = await asyncio.to_thread(choose_plan, len(eval_run.eval_set.cases), flip)
                committed = check_trial_errors(await eval_run.run_trials(max(plan.baseline_trials, BASELINE_TRIALS)))
    set_hash = eval_run.eval_set.content_hash
    return await _store_baseline(runtime, spec.name, set_hash, eval_run.eval_run_id, committed, by, scorers)


async def baseline_from_eval_run(runtime: Runtime, spec: EvalSpec[Any, Any], eval_run_id: str, *, by: str) -> Baseline:
    """Makes a stored eval run the baseline.

    Args:
        runtime: Where the eval run is stored.
        spec: What the eval run evaluated.
        eval_run_id: The id of a complete eval run.
        by: Who creates the baseline.

    Raises:
        NotFound: There is no such eval run.
        TooManyErrors: The infrastructure failed more than 5% of its trials.
        BadInput: The eval run is incomplete, another agent's or of another version of the set, or its scorers are not
            known or not those of `spec`.
    """
    eval_set = load_frozen_set(spec)
    view, trials = await runtime.database.read(load_eval_run(eval_run_id))
    remedy = f"`handrail eval baseline {spec.name}` runs the set and makes that the baseline"
    if view.agent != spec.name:
        raise BadInput(f"eval run {eval_run_id} is of agent {view.agent}, not of {spec.name}; {remedy}")
    if view.ended_at is None:
        raise BadInput(f"eval run {eval_run_id} is not complete, it has {len(trials)} trials; {remedy}")
    if view.set_hash != eval_set.content_hash:
        hashes = f"{view.set_hash[:12]}, now {eval_set.content_hash[:12]}"
        raise BadInput(f"eval run {eval_run_id}: the set has changed since it ran ({hashes}); {remedy}")
    if view.scored_by is None:
        raise BadInput(
            f"eval run {eval_run_id} has no record of its scorers, so it cannot be compared with another; {remedy}"
        )
    with use_runtime(runtime):
        changed = changed_scorers(view.scored_by, scorer_hashes(spec))
    if changed:
        names = f"by other scorers (changed since it ran: {', '.join(changed)})"
        raise BadInput(f"eval run {eval_run_id} was scored {names}; {remedy}")
    trials = check_trial_errors(trials)
    return await _store_baseline(runtime, spec.name, view.set_hash, eval_run_id, trials, by, view.scored_by)


async def find_baseline(runtime: Runtime, agent: str, set_hash: str) -> Baseline:
    """The newest baseline for this version of the set. Raises NoBaseline, which names the newest of another version."""
    baseline = await runtime.database.read(newest_baseline(agent, set_hash))
    if baseline is not None:
        return baseline
    others = await runtime.database.read(list_baselines(agent, 1))
    if not others:
        raise NoBaseline(
            f"agent {agent} has no baseline; run `handrail eval baseline {agent}` with the agent as it is in production"
        )
    [newest] = others
    raise NoBaseline(
        f"agent {agent}: the set has changed since its baseline of {newest.at:%Y-%m-%d} ({newest.set_hash[:12]}, now "
        f"{set_hash[:12]}); run `handrail eval baseline {agent}` with the agent as it is in production, then the gate"
    )


def check_trial_errors(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The same trials. Raises TooManyErrors, with the faults, where the infrastructure failed more than 5% of them."""
    failed = [trial for trial in trials if trial.error is not None]
    if failed and Fraction(len(failed), len(trials)) > MAX_ERROR_SHARE:
        counts = Counter(str(trial.error) for trial in failed).most_common()
        faults = ", ".join(f"{count} {error}" for error, count in counts)
        cases = list(dict.fromkeys(trial.case_id for trial in failed))
        names = f"{', '.join(cases[:5])}{' and more' if len(cases) > 5 else ''}"
        raise TooManyErrors(
            f"the infrastructure failed {len(failed)} of {len(trials)} trials ({faults}; cases {names}), which says "
            "nothing about the agent; try again when its model is available"
        )
    return trials


def measured_flip_rate(trials: Sequence[Trial]) -> float | None:
    """The chance that two trials of a case differ, estimated from these trials; None where no case has two."""
    values = values_by_case((trial.case_id, trial.value) for trial in trials if trial.error is None)
    rate = flip_rate(values.values())
    return None if rate is None else float(rate)


async def _store_baseline(
    runtime: Runtime,
    agent: str,
    set_hash: str,
    eval_run_id: str,
    trials: Sequence[Trial],
    by: str,
    scorers: Mapping[str, str],
) -> Baseline:
    now = runtime.clock.now()
    baseline = Baseline(
        baseline_id=new_id("base", now),
        agent=agent,
        set_hash=set_hash,
        agent_hash=most_common_agent_hash(trials),
        eval_run_id=eval_run_id,
        by=by,
        at=now,
        trials=max(trial.trial for trial in trials),
        scored_by=scorers,
    )
    await runtime.database.write(add_baseline(baseline))
    return baseline
