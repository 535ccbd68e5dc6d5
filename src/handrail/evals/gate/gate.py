"""Baselines and the gate at work: what an agent has to beat, and whether it does."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, TypeAlias

from handrail.evals.gate.verdict_store import GateView, add_gate
from handrail.evals.runner.eval_run import EvalReport, OnTrial, Running, evaluating, frozen_set
from handrail.evals.runner.response_cache import Responses
from handrail.evals.runner.task import Task
from handrail.evals.scorers.fingerprint import scored_by, scorers_changed
from handrail.evals.store.baseline_file import Carried, bring_in
from handrail.evals.store.baselines import Baseline, add_baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import Trial, agent_hash_of, load_eval_run
from handrail.kernel.errors import BadInput, HandrailError
from handrail.kernel.ids import new_id
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime, use_runtime

from .decision_rule import MARGIN, GateVerdict, Margin, absolute, flip_rate, values_of
from .measures import Measure, early, final, measures_of
from .trial_plan import BASELINE_TRIALS, FEW_FLIPS, Plan, at_most, choose, choose_looks, shortened

Subject: TypeAlias = GovernedAgent[Any, Any] | Task

MAX_ERRORS = Fraction(5, 100)
"""The share of trials that the infrastructure may fail before nothing can be said."""


class NoBaseline(HandrailError):
    """There is nothing to compare with: set a baseline for the set as it is."""

    code: ClassVar[str] = "no_baseline"


class TooManyErrors(HandrailError):
    """The infrastructure failed too many trials to say anything of the agent: mend it, then try again."""

    code: ClassVar[str] = "too_many_errors"


class Distrusted(HandrailError):
    """Only a judge that is not to be trusted would pass this change: measure the judge, or score by something else."""

    code: ClassVar[str] = "judge_distrusted"


@dataclass(frozen=True, kw_only=True)
class Gated:
    """What the gate said, of which eval run, against which baseline; `agent_hash` is the candidate's.

    `before` are the baseline's trials. `plan` is how many trials the gate reckoned with; None where the baseline has
    one trial of each case, which says nothing of flips. `distrusted` has the reasons, by judge.
    """

    verdict: GateVerdict
    baseline: Baseline
    report: EvalReport
    agent_hash: str | None
    before: tuple[Trial, ...] = ()
    plan: Plan | None = None
    distrusted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


async def set_baseline(
    runtime: Runtime,
    subject: Subject,
    *,
    by: str,
    trials: int | None = None,
    at_once: int = 1,
    responses: Responses | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> Baseline:
    """Tries the agent on its frozen set and makes that the baseline: `trials` of each case, else as many as flips ask.

    Raises TooManyErrors, BadInput for fewer trials than one, and what `evaluating` raises. Stopped between the trials
    and the baseline, it leaves a complete eval run that `promote` takes.
    """
    if trials is not None and trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    with use_runtime(runtime):
        scorers = scored_by(frozen_set(subject)[1])
        async with evaluating(runtime, subject, at_once=at_once, responses=responses, on_trial=on_trial) as running:
            done = checked(await running.up_to(trials or BASELINE_TRIALS))
            if trials is None and (flip := _flip(done)):
                plan = await asyncio.to_thread(choose, len(running.loaded.cases), flip)
                done = checked(await running.up_to(max(plan.baseline_trials, BASELINE_TRIALS)))
        set_hash = running.loaded.content_hash
    return await _point_at(runtime, subject.name, set_hash, running.eval_run_id, done, by, scorers)


async def promote(runtime: Runtime, subject: Subject, eval_run_id: str, *, by: str) -> Baseline:
    """Makes an eval run that is there the baseline, scored as it was.

    Raises NotFound, TooManyErrors, and BadInput where it is incomplete, another agent's, of another state of the set,
    or scored by other means than the set is now.
    """
    loaded, spec = frozen_set(subject)
    view, trials = await runtime.database.read(lambda conn: load_eval_run(conn, eval_run_id))
    remedy = f"`handrail eval baseline {subject.name}` runs the set and makes a baseline of it"
    if view.agent != subject.name:
        raise BadInput(f"eval run {eval_run_id} is of agent {view.agent}, not of {subject.name}; {remedy}")
    if view.ended_at is None:
        raise BadInput(f"eval run {eval_run_id} has {len(trials)} trials and is not complete; {remedy}")
    if view.set_hash != loaded.content_hash:
        states = f"{view.set_hash[:12]}, now {loaded.content_hash[:12]}"
        raise BadInput(f"eval run {eval_run_id}: the set has changed since it ran ({states}); {remedy}")
    if view.scored_by is None:
        raise BadInput(
            f"eval run {eval_run_id} is older than the record of what scores an eval run, so nothing shows that it can "
            f"be compared; {remedy}"
        )
    with use_runtime(runtime):
        changed = scorers_changed(view.scored_by, scored_by(spec))
    if changed:
        means = f"scored by other means (changed since it ran: {', '.join(changed)})"
        raise BadInput(f"eval run {eval_run_id} was {means}; {remedy}")
    return await _point_at(runtime, subject.name, view.set_hash, eval_run_id, checked(trials), by, view.scored_by)


async def gate(
    runtime: Runtime,
    subject: Subject,
    *,
    margin: Margin = absolute(MARGIN),  # noqa: B008 - a function, made once
    trials: int | None = None,
    carried: Carried | None = None,
    at_once: int = 1,
    responses: Responses | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> Gated:
    """Tries the candidate on the frozen set until the rule decides against the newest baseline, and keeps the verdict.

    At most `trials` of each case; the baseline is that of the file `carried`, where one is given. A run that fails in a
    trial is a failed case; one that the infrastructure failed is left out. Raises NoBaseline, before any trial, where
    there is nothing to compare with or it was scored by other means; TooManyErrors where more than 5% of the trials
    have failed so; Distrusted where only a distrusted judge would pass the change; BadInput for fewer trials than one
    or another agent's file; and what `evaluating` raises where the trials could not be done: then there is no verdict.
    """
    if trials is not None and trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    loaded, spec = frozen_set(subject)
    baseline = await _to_beat(runtime, subject.name, loaded.content_hash, carried)
    with use_runtime(runtime):
        scorers = scored_by(spec)
        _check_scorers(baseline, scorers, carried)
        _, before = await runtime.database.read(lambda conn: load_eval_run(conn, baseline.eval_run_id))
        by = await measures_of(runtime, subject.name, spec, before, scorers)
        plan = await plan_of(before, margin, trials)
        looks = plan.looks if plan else at_most(FEW_FLIPS, trials)
        async with evaluating(runtime, subject, at_once=at_once, responses=responses, on_trial=on_trial) as running:
            verdict = await _decided(running, before, by.measures, margin, looks)
    if verdict.passed and by.judge_alone:
        raise Distrusted(_distrusted(subject.name, by.distrusted))
    report = running.report()
    await _keep(runtime, baseline, report, verdict)
    return Gated(
        verdict=verdict,
        baseline=baseline,
        report=report,
        agent_hash=agent_hash_of(report.trials),
        before=tuple(before),
        plan=plan,
        distrusted=by.distrusted,
    )


async def plan_of(
    baseline: Sequence[Trial],
    margin: Margin = absolute(MARGIN),  # noqa: B008
    up_to: int | None = None,
) -> Plan | None:
    """The looks that a gate against these trials takes, with at most `up_to` trials of a case.

    None where no case of the baseline has two, so that flips are unknown.
    """
    flip = _flip(baseline)
    if flip is None:
        return None
    sides = values_of((each.case_id, each.value) for each in baseline if each.error is None)
    score = sum((sum(values, Fraction()) / len(values) for values in sides.values()), Fraction()) / len(sides)
    trials = max(map(len, sides.values()))
    plan = await asyncio.to_thread(choose_looks, len(sides), flip, trials, margin(score))
    return await asyncio.to_thread(shortened, plan, up_to, margin(score))


async def baseline_for(runtime: Runtime, agent: str, set_hash: str) -> Baseline:
    """The baseline that counts for this state of the set. Raises NoBaseline, saying what is there instead."""
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


def checked(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials, where the infrastructure failed few enough of them. Raises TooManyErrors, with what failed."""
    failed = [each for each in trials if each.error is not None]
    if failed and Fraction(len(failed), len(trials)) > MAX_ERRORS:
        kinds = Counter(str(each.error) for each in failed).most_common()
        named = ", ".join(f"{count} {error}" for error, count in kinds)
        cases = ", ".join(dict.fromkeys(each.case_id for each in failed[:5]))
        raise TooManyErrors(
            f"{len(failed)} of {len(trials)} trials failed for reasons that are not the agent's ({named}; cases {cases}"
            f"{' and more' if len(failed) > 5 else ''}); that says nothing of it: try again when its model can be asked"
        )
    return trials


async def _decided(
    running: Running, before: Sequence[Trial], measures: Sequence[Measure], margin: Margin, looks: Sequence[int]
) -> GateVerdict:
    """The verdict after as few looks as it takes."""
    for look in looks[:-1]:
        if verdict := early(before, checked(await running.up_to(look)), measures, margin):
            return verdict
    return final(before, checked(await running.up_to(looks[-1])), measures, margin)


async def _keep(runtime: Runtime, baseline: Baseline, report: EvalReport, verdict: GateVerdict) -> None:
    now = runtime.clock.now()
    kept = GateView(
        gate_id=new_id("gate", now),
        agent=baseline.agent,
        baseline_id=baseline.baseline_id,
        eval_run_id=report.eval_run_id,
        verdict=verdict,
        at=now,
    )
    await runtime.database.write(add_gate(kept))


def _distrusted(agent: str, reasons: Mapping[str, tuple[str, ...]]) -> str:
    named = "; ".join(f"judge {name}: {', '.join(why)}" for name, why in reasons.items())
    return (
        f"agent {agent}: nothing but a distrusted judge would pass this change ({named}); "
        f"`handrail eval label {agent}`, then `handrail eval calibrate {agent}`"
    )


async def _point_at(
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
        agent_hash=agent_hash_of(trials),
        eval_run_id=eval_run_id,
        by=by,
        at=now,
        trials=max(trial.trial for trial in trials),
        scored_by=scorers,
    )
    await runtime.database.write(add_baseline(baseline))
    return baseline


async def _to_beat(runtime: Runtime, agent: str, set_hash: str, carried: Carried | None) -> Baseline:
    """The baseline that counts; that of the file goes before any in the store, which it is brought into."""
    if carried is None:
        return await baseline_for(runtime, agent, set_hash)
    found = carried.baseline
    if found.agent != agent:
        raise BadInput(f"{carried.path}: a baseline of agent {found.agent}, not of {agent}; name the file of {agent}")
    if found.set_hash != set_hash:
        states = f"{found.set_hash[:12]}, now {set_hash[:12]}"
        raise NoBaseline(
            f"{carried.path}: the set has changed since this baseline of {found.at:%Y-%m-%d} ({states}); run "
            f"{carried.remedy} with the agent as it is in production, then the gate"
        )
    await runtime.database.write(bring_in(carried))
    return found


def _check_scorers(baseline: Baseline, now: Mapping[str, str], carried: Carried | None) -> None:
    if changed := scorers_changed(baseline.scored_by, now):
        remedy = carried.remedy if carried else f"`handrail eval baseline {baseline.agent}`"
        raise NoBaseline(
            f"agent {baseline.agent}: its baseline of {baseline.at:%Y-%m-%d} was scored by other means (changed since: "
            f"{', '.join(changed)}); run {remedy} with the agent as it is in production, then the gate"
        )


def _flip(trials: Sequence[Trial]) -> float | None:
    found = flip_rate(values_of((each.case_id, each.value) for each in trials if each.error is None).values())
    return None if found is None else float(found)
