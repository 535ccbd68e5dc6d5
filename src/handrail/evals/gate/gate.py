"""The gate: runs a changed agent against its baseline and decides whether the change passes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from handrail.evals.errors import NoBaseline, UntrustedJudge
from handrail.evals.runner.eval_run import EvalReport, EvalRun, OnTrial, load_frozen_set, open_eval_run
from handrail.evals.runner.response_cache import ResponseCache
from handrail.evals.scorers.fingerprint import changed_scorers, scorer_hashes
from handrail.evals.spec import EvalSpec
from handrail.evals.store.baseline_file import BaselineFile, import_baseline_file
from handrail.evals.store.baselines import Baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run, most_common_agent_hash
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.runs.runtime import Runtime, use_runtime

from .baseline import check_trial_errors, find_baseline, measured_flip_rate
from .decision_rule import MARGIN, GateVerdict, Margin, absolute_margin, values_by_case
from .measures import Measure, final_verdict, interim_verdict, load_measures
from .trial_plan import DEFAULT_LOOKS, TrialPlan, cap_looks, choose_looks, shorten_plan
from .verdict_store import GateRecord, add_gate


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """A verdict of the gate and what it is based on.

    `baseline_trials` are the trials that the candidate was compared with. `plan` says after how many trials the gate
    may decide; None if the baseline has one trial of each case, which leaves the flip rate unknown. `distrusted` has
    the reasons why a judge is not trusted, by the judge's name.
    """

    verdict: GateVerdict
    baseline: Baseline
    report: EvalReport
    baseline_trials: tuple[Trial, ...] = ()
    plan: TrialPlan | None = None
    distrusted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def agent_hash(self) -> str | None:
        """The candidate's fingerprint; None where no trial reached a model."""
        return most_common_agent_hash(self.report.trials)


async def run_gate(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    *,
    margin: Margin = absolute_margin(MARGIN),  # noqa: B008 - a function, made once
    trials: int | None = None,
    baseline_file: BaselineFile | None = None,
    concurrency: int = 1,
    responses: ResponseCache | None = None,
    on_trial: OnTrial = lambda _case, _trial: None,
) -> GateResult:
    """Runs the candidate on the frozen eval set until the decision rule reaches a verdict, and stores the verdict.

    A failed run is a failed trial; a trial that the infrastructure failed is left out.

    Args:
        runtime: Where the baseline, the trials and the verdict are stored.
        spec: The candidate, and what it is evaluated by.
        margin: How far the score may drop.
        trials: Trials of each case, at most; None for as many as the plan allows.
        baseline_file: Compare with the baseline in this file, in place of the newest in the store.
        concurrency, responses, on_trial: As for `open_eval_run`.

    Returns:
        The verdict and what it is based on.

    Raises:
        NoBaseline: There is no baseline for the set and the scorers as they are now; no trial was run.
        TooManyErrors: The infrastructure failed more than 5% of the trials; there is no verdict.
        UntrustedJudge: Only judges that are not trusted would pass the change; there is no verdict.
        BadInput: `trials` is below 1, the file is another agent's, or `open_eval_run` raises it.
    """
    if trials is not None and trials < 1:
        raise BadInput(f"trials: {trials}; a case is tried at least once")
    eval_set = load_frozen_set(spec)
    baseline = await _load_baseline(runtime, spec.name, eval_set.content_hash, baseline_file)
    with use_runtime(runtime):
        scorers = scorer_hashes(spec)
        _check_scorers(baseline, scorers, baseline_file)
        _, baseline_trials = await runtime.database.read(load_eval_run(baseline.eval_run_id))
        measures = await load_measures(runtime, spec, baseline_trials, scorers)
        plan = await plan_for(baseline_trials, margin, trials)
        looks = plan.looks if plan else cap_looks(DEFAULT_LOOKS, trials)
        opened = open_eval_run(runtime, spec, concurrency=concurrency, responses=responses, on_trial=on_trial)
        async with opened as eval_run:
            verdict = await _decide(eval_run, baseline_trials, measures.measures, margin, looks)
    if verdict.passed and measures.judge_alone:
        raise UntrustedJudge(_untrusted_message(spec.name, measures.distrusted))
    await _store_verdict(runtime, baseline, eval_run.eval_run_id, verdict)
    result = GateResult(verdict=verdict, baseline=baseline, report=eval_run.report())
    return replace(result, baseline_trials=tuple(baseline_trials), plan=plan, distrusted=measures.distrusted)


async def plan_for(
    baseline_trials: Sequence[Trial],
    margin: Margin = absolute_margin(MARGIN),  # noqa: B008 - a function, made once
    max_trials: int | None = None,
) -> TrialPlan | None:
    """After how many trials a gate against this baseline may decide, with at most `max_trials` of a case.

    None where no case of the baseline has two trials, so that the flip rate is unknown.
    """
    flip = measured_flip_rate(baseline_trials)
    if flip is None:
        return None
    values = values_by_case((trial.case_id, trial.value) for trial in baseline_trials if trial.error is None)
    score = sum((sum(case, Fraction()) / len(case) for case in values.values()), Fraction()) / len(values)
    trials = max(map(len, values.values()))
    # Both simulate the decision rule, which takes up to a second.
    plan = await asyncio.to_thread(choose_looks, len(values), flip, trials, margin(score))
    return await asyncio.to_thread(shorten_plan, plan, max_trials, margin(score))


async def _decide(
    eval_run: EvalRun,
    baseline_trials: Sequence[Trial],
    measures: Sequence[Measure],
    margin: Margin,
    looks: Sequence[int],
) -> GateVerdict:
    """The verdict at the first look that allows one; the last look always does."""
    *interim, last = looks
    for look in interim:
        trials = check_trial_errors(await eval_run.run_trials(look))
        if verdict := interim_verdict(baseline_trials, trials, measures, margin):
            return verdict
    trials = check_trial_errors(await eval_run.run_trials(last))
    return final_verdict(baseline_trials, trials, measures, margin)


async def _store_verdict(runtime: Runtime, baseline: Baseline, eval_run_id: str, verdict: GateVerdict) -> None:
    now = runtime.clock.now()
    record = GateRecord(
        gate_id=new_id("gate", now),
        agent=baseline.agent,
        baseline_id=baseline.baseline_id,
        eval_run_id=eval_run_id,
        verdict=verdict,
        at=now,
    )
    await runtime.database.write(add_gate(record))


def _untrusted_message(agent: str, distrusted: Mapping[str, tuple[str, ...]]) -> str:
    judges = "; ".join(f"judge {name}: {', '.join(reasons)}" for name, reasons in distrusted.items())
    return (
        f"agent {agent}: only a judge that is not trusted would pass this change ({judges}); run "
        f"`handrail eval label {agent}`, then `handrail eval calibrate {agent}`"
    )


async def _load_baseline(runtime: Runtime, agent: str, set_hash: str, baseline_file: BaselineFile | None) -> Baseline:
    """The baseline in the file, which is imported into the store, or without a file the newest in the store."""
    if baseline_file is None:
        return await find_baseline(runtime, agent, set_hash)
    baseline, path = baseline_file.baseline, baseline_file.path
    if baseline.agent != agent:
        raise BadInput(f"{path}: a baseline of agent {baseline.agent}, not of {agent}; pass the file of {agent}")
    if baseline.set_hash != set_hash:
        hashes = f"{baseline.set_hash[:12]}, now {set_hash[:12]}"
        raise NoBaseline(
            f"{path}: the set has changed since this baseline of {baseline.at:%Y-%m-%d} ({hashes}); run "
            f"{baseline_file.rewrite_command} with the agent as it is in production, then the gate"
        )
    await runtime.database.write(import_baseline_file(baseline_file))
    return baseline


def _check_scorers(baseline: Baseline, scorers: Mapping[str, str], baseline_file: BaselineFile | None) -> None:
    if changed := changed_scorers(baseline.scored_by, scorers):
        command = baseline_file.rewrite_command if baseline_file else f"`handrail eval baseline {baseline.agent}`"
        raise NoBaseline(
            f"agent {baseline.agent}: its baseline of {baseline.at:%Y-%m-%d} was scored by other scorers (changed "
            f"since: {', '.join(changed)}); run {command} with the agent as it is in production, then the gate"
        )
