"""Runs a governed agent over a frozen set, as it is in production, and commits every trial as it ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handrail.kernel import BadInput, new_id
from handrail.review import withdraw
from handrail.runs import GovernedAgent, Outcome, Runtime, Trials, load_run, use_runtime

from . import store
from .scoring import Score, exact, score
from .sets import Case, EvalSet, check_frozen, load_set, lock_path
from .store import Trial

TENANT = "evals"
"""The tenant of every trial's run, so that trials do not count among a product's own runs."""


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """An eval run that is complete. `score` is over all cases; `trials` are in the set's order."""

    eval_run_id: str
    agent: str
    set_hash: str
    score: Score
    trials: tuple[Trial, ...]


def frozen_set(agent: GovernedAgent[Any, Any]) -> tuple[EvalSet, Trials[Any, Any]]:
    """The agent's eval set, checked against its lock. Raises BadInput where it has none or it is not frozen."""
    if agent.trials is None:
        raise BadInput(f"agent {agent.name} has no eval set; pass `trials=Trials(cases=..., observe=...)` to govern()")
    loaded = load_set(agent.trials.cases)
    check_frozen(loaded, lock_path(agent.trials.cases))
    return loaded, agent.trials


async def run_evals(
    runtime: Runtime,
    agent: GovernedAgent[Any, Any],
    *,
    at_once: int = 1,
    on_trial: Callable[[Case, Trial], None] = lambda _case, _trial: None,
) -> EvalReport:
    """One trial of each case of the agent's frozen set, `at_once` side by side.

    Raises BadInput where the agent has no frozen set or `at_once` is below 1; StoreError where a trial cannot be
    committed; those before it are kept.
    """
    if at_once < 1:
        raise BadInput(f"at_once: {at_once}; at least one trial has to run at a time")
    loaded, trials = frozen_set(agent)
    eval_run_id = new_id("eval", runtime.clock.now())
    database = runtime.database
    await database.write(
        store.start(eval_run_id, agent.name, loaded.content_hash, len(loaded.cases), runtime.clock.now())
    )
    places = asyncio.Semaphore(at_once)

    async def one(case: Case) -> Trial:
        async with places:
            with use_runtime(runtime):
                outcome = await agent.run(case.input, user=eval_run_id, tenant=TENANT, make_deps=trials.deps)
            trial = await _judged(runtime, trials, case, outcome)
            # What a trial asked people for is nobody's to decide.
            await database.write(store.add_trial(eval_run_id, trial), withdraw(trial.run_id))
            on_trial(case, trial)
            return trial

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(case)) for case in loaded.cases]
    except BaseExceptionGroup as errors:
        # The first one stopped the others; which case it was stands in its run.
        raise errors.exceptions[0] from None
    done = tuple(task.result() for task in tasks)
    await database.write(store.end(eval_run_id, runtime.clock.now()))
    return EvalReport(
        eval_run_id=eval_run_id,
        agent=agent.name,
        set_hash=loaded.content_hash,
        score=score([float(trial.verdict.passed) for trial in done]),
        trials=done,
    )


async def _judged(runtime: Runtime, trials: Trials[Any, Any], case: Case, outcome: Outcome[Any]) -> Trial:
    observed = trials.observe(outcome)
    now = runtime.clock.now()
    run = await runtime.database.read(lambda conn: load_run(conn, outcome.facts.run_id, now))
    return Trial(
        case_id=case.id,
        trial=1,
        run_id=run.run_id,
        outcome=outcome.type,
        path=outcome.path,
        verdict=exact(case.expect, observed),
        observed=observed,
        duration_ns=round(outcome.facts.duration.total_seconds() * 1e9),
        cost=outcome.facts.cost,
        model=run.model,
        agent_hash=run.fingerprint.agent if run.fingerprint else None,
    )
