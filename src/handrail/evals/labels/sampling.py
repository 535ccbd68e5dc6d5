"""Which trials people label and in which order, and how a judge is measured by their labels.

People see the request, the answer and the rubric, but not what the judge decided. All trials are put in one seeded
random order and labelled from its start. So a larger share contains a smaller one, and at any time the labels so far
are of a random sample.
"""

import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.spec import EvalSpec
from handrail.evals.store.baselines import Baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.evals.store.labels import Label, Sample, add_samples, list_labelled_eval_runs, load_labels, load_samples
from handrail.kernel.errors import BadInput
from handrail.runs.runtime import Runtime

from .calibration import JudgeCalibration, LabelledTrial, calibrate_judge, distrust_reasons

DEFAULT_SHARE = 0.2
"""The share of the trials that people label."""
_SECOND_LABEL_EVERY = 5


def judges_in(spec: EvalSpec[Any, Any]) -> tuple[Judge, ...]:
    """The judges among the scorers of an eval spec."""
    return tuple(scorer for scorer in spec.scorers if isinstance(scorer, Judge))


def find_judge(spec: EvalSpec[Any, Any], name: str | None) -> Judge:
    """The judge of an eval spec, by name where it has several. Raises BadInput."""
    judges = judges_in(spec)
    matching = [judge for judge in judges if name in (None, judge.name)]
    if len(matching) == 1:
        return matching[0]
    if not judges:
        raise BadInput(f"agent {spec.name}: its EvalSpec has no judge; add one, EvalSpec(scorers=(judge(...), ...))")
    names = ", ".join(judge.name for judge in judges)
    raise BadInput(f"agent {spec.name}: choose one of its judges with --judge ({names})")


def sample_trials(
    trials: Sequence[Trial],
    judge: Judge,
    *,
    agent: str,
    eval_run_id: str,
    judge_hash: str,
    share: float = DEFAULT_SHARE,
) -> tuple[Sample, ...]:
    """Draws a random share of the trials that a judge scored, in random order, every fifth for two people.

    The seed is derived from the eval run and the judge, so the draw is reproducible.

    Args:
        trials: All trials of the eval run.
        judge: The judge whose scores are checked.
        agent: The agent's name.
        eval_run_id: The eval run.
        judge_hash: The fingerprint of the judge as it scored these trials.
        share: The share to draw, above 0 and up to 1.

    Raises:
        BadInput: The share is out of range, or the judge scored none of the trials.
    """
    if not 0 < share <= 1:
        raise BadInput(f"share {share}: give a share above 0 and up to 1, such as 0.2")
    scored = [trial for trial in trials if trial.error is None and judge.passed(trial.score.fields) is not None]
    if not scored:
        raise BadInput(
            f"eval run {eval_run_id}: judge {judge.name} scored none of its trials; create a baseline with it"
        )
    seed = int.from_bytes(hashlib.sha256(f"{eval_run_id} {judge.name}".encode()).digest()[:6], "big")
    order = sorted(scored, key=lambda trial: (trial.case_id, trial.trial))
    random.Random(seed).shuffle(order)  # noqa: S311 - for sampling, not for security
    drawn = order[: math.ceil(share * len(order))]
    return tuple(
        Sample(
            eval_run_id=eval_run_id,
            judge=judge.name,
            case_id=trial.case_id,
            trial=trial.trial,
            agent=agent,
            judge_hash=judge_hash,
            position=position,
            people=2 if position % _SECOND_LABEL_EVERY == 0 else 1,
            probability=len(drawn) / len(order),
            seed=seed,
        )
        for position, trial in enumerate(drawn)
    )


def next_to_label(by: str, samples: Sequence[Sample], labels: Sequence[Label]) -> Sample | None:
    """The next trial for a person to label; None when there is none left for them.

    Args:
        by: The person, as named in their labels.
        samples: The drawn trials, in order.
        labels: All labels so far.
    """
    by_trial: defaultdict[tuple[str, int], list[Label]] = defaultdict(list)
    for label in labels:
        by_trial[label.case_id, label.trial].append(label)
    for sample in samples:
        trial_labels = by_trial[sample.case_id, sample.trial]
        labelled_before = any(label.by == by for label in trial_labels)
        # A skip counts as no label, so that somebody else is asked for one.
        if not labelled_before and sum(label.right is not None for label in trial_labels) < sample.people:
            return sample
    return None


def split_by_labels(
    judge: Judge, trials: Sequence[Trial], labels: Sequence[Label]
) -> tuple[list[LabelledTrial], list[tuple[str, bool]]]:
    """The trials that people labelled, and (case id, whether the judge passed it) for the others.

    Skipped trials count as unlabelled. Cases that the rubric was tuned on are left out of both.
    """
    labels_by_trial: defaultdict[tuple[str, int], list[bool]] = defaultdict(list)
    for label in labels:
        if label.right is not None:
            labels_by_trial[label.case_id, label.trial].append(label.right)
    labelled, unlabelled = [], []
    for trial in trials:
        passed = judge.passed(trial.score.fields)
        if trial.error is not None or passed is None or trial.case_id in judge.rubric.tuned_on:
            continue
        if trial_labels := labels_by_trial.get((trial.case_id, trial.trial)):
            labelled.append(LabelledTrial(case_id=trial.case_id, passed=passed, people=tuple(trial_labels)))
        else:
            unlabelled.append((trial.case_id, passed))
    return labelled, unlabelled


async def ensure_sample(
    runtime: Runtime, judge: Judge, baseline: Baseline, share: float = DEFAULT_SHARE
) -> list[Sample]:
    """The trials of a baseline that people label; those of the share that were not drawn before are drawn now.

    Args:
        runtime: Where the baseline and the samples are stored.
        judge: The judge whose scores are checked.
        baseline: The baseline.
        share: The share of its trials to draw, above 0 and up to 1.

    Raises:
        BadInput: The share is out of range, or the judge did not score the baseline.
    """
    judge_hash = baseline.scored_by.get(judge.name)
    if judge_hash is None:
        raise BadInput(f"the baseline of {baseline.at:%Y-%m-%d} was not scored by judge {judge.name}; create a new one")
    _, trials = await runtime.database.read(load_eval_run(baseline.eval_run_id))
    samples = sample_trials(
        trials,
        judge,
        agent=baseline.agent,
        eval_run_id=baseline.eval_run_id,
        judge_hash=judge_hash,
        share=share,
    )
    await runtime.database.write(add_samples(samples))
    return await runtime.database.read(load_samples(baseline.eval_run_id, judge.name))


async def measure_judge(
    runtime: Runtime, agent: str, judge: Judge, judge_hash: str
) -> tuple[JudgeCalibration | None, tuple[str, ...]]:
    """Measures a judge against people's labels.

    Args:
        runtime: Where the labels are stored.
        agent: The agent whose trials were labelled.
        judge: The judge.
        judge_hash: Its current fingerprint; labels of trials that another version scored do not count.

    Returns:
        The calibration, None without labels of trials that this version scored; and the reasons not to trust the
        judge, none when it can be trusted.
    """
    labelled_runs = await runtime.database.read(list_labelled_eval_runs(agent, judge.name))
    current = [eval_run_id for eval_run_id, scored_with in labelled_runs if scored_with == judge_hash]
    if not current:
        if labelled_runs:
            return None, ("its model or rubric has changed since people labelled its trials",)
        return None, (f"nobody has labelled its trials; `handrail eval label {agent}`",)
    _, trials = await runtime.database.read(load_eval_run(current[0]))
    labels = await runtime.database.read(load_labels(current[0], judge.name))
    calibration = calibrate_judge(*split_by_labels(judge, trials, labels))
    return calibration, distrust_reasons(calibration)
