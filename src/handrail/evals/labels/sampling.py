"""Which trials people look at, in which order, and what their labels say of a judge.

People see the request, the answer and the rubric, and not what the judge said. A trial is drawn by its place in one
seeded order of all trials, so a larger share takes in the smaller one, and whatever part is done by now is random too.
"""

import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.store.baselines import Baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.evals.store.labels import Label, Sample, add_samples, best_labelled, load_labels, load_samples
from handrail.kernel.errors import BadInput
from handrail.runs.agent import GovernedAgent, Trials
from handrail.runs.runtime import Runtime

from .calibration import Calibration, Labelled, calibrate, distrust

SHARE = 0.2
"""The share of the trials that people look at."""
_SECOND_LOOK = 5


def judges_of(spec: Trials[Any, Any]) -> tuple[Judge, ...]:
    """The judges among a set's scorers."""
    return tuple(each for each in spec.scorers if isinstance(each, Judge))


def judge_of(agent: GovernedAgent[Any, Any], name: str | None) -> Judge:
    """The agent's judge, by name where there are several. Raises BadInput."""
    judges = () if agent.trials is None else judges_of(agent.trials)
    found = [each for each in judges if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    named = ", ".join(each.name for each in judges)
    if not judges:
        raise BadInput(f"agent {agent.name}: its set has no judge to measure; give Trials(scorers=(judge(...), ...))")
    raise BadInput(f"agent {agent.name}: name one of its judges with --judge ({named})")


def draw(
    trials: Sequence[Trial], judge: Judge, *, agent: str, eval_run_id: str, judge_hash: str, share: float = SHARE
) -> tuple[Sample, ...]:
    """A random `share` of the trials that the judge scored, in random order, every fifth for two people.

    The seed follows from the eval run and the judge. Raises BadInput where the judge scored none, or for no share.
    """
    if not 0 < share <= 1:
        raise BadInput(f"share {share}: give a share above 0 and up to 1, such as 0.2")
    scored = [each for each in trials if each.error is None and judge.verdict(each.verdict.fields) is not None]
    if not scored:
        raise BadInput(f"eval run {eval_run_id}: judge {judge.name} scored none of its trials; set a baseline with it")
    seed = int.from_bytes(hashlib.sha256(f"{eval_run_id} {judge.name}".encode()).digest()[:6], "big")
    ordered = sorted(scored, key=lambda each: (each.case_id, each.trial))
    random.Random(seed).shuffle(ordered)  # noqa: S311 - repeatable on purpose
    taken = ordered[: math.ceil(share * len(ordered))]
    return tuple(
        Sample(
            eval_run_id=eval_run_id,
            judge=judge.name,
            case_id=each.case_id,
            trial=each.trial,
            agent=agent,
            judge_hash=judge_hash,
            position=position,
            people=2 if position % _SECOND_LOOK == 0 else 1,
            probability=len(taken) / len(ordered),
            seed=seed,
        )
        for position, each in enumerate(taken)
    )


def next_for(by: str, drawn: Sequence[Sample], labels: Sequence[Label]) -> Sample | None:
    """The next trial that a person is to look at; None where there is none left for them."""
    seen: defaultdict[tuple[str, int], list[Label]] = defaultdict(list)
    for each in labels:
        seen[each.case_id, each.trial].append(each)
    for sample in drawn:
        said = seen[sample.case_id, sample.trial]
        mine = any(each.by == by for each in said)
        if not mine and sum(each.right is not None for each in said) < sample.people:
            return sample
    return None


def with_labels(
    judge: Judge, trials: Sequence[Trial], labels: Sequence[Label]
) -> tuple[list[Labelled], list[tuple[str, bool]]]:
    """The trials that people labelled, and (case id, judge passed it) for the others.

    Skipped trials are as if nobody had looked; cases that the rubric was tuned on are left out of both.
    """
    people: defaultdict[tuple[str, int], list[bool]] = defaultdict(list)
    for each in labels:
        if each.right is not None:
            people[each.case_id, each.trial].append(each.right)
    labelled, rest = [], []
    for trial in trials:
        passed = judge.verdict(trial.verdict.fields)
        if trial.error is not None or passed is None or trial.case_id in judge.rubric.tuned_on:
            continue
        if said := people.get((trial.case_id, trial.trial)):
            labelled.append(Labelled(case_id=trial.case_id, passed=passed, people=tuple(said)))
        else:
            rest.append((trial.case_id, passed))
    return labelled, rest


async def drawn_of(runtime: Runtime, judge: Judge, baseline: Baseline, share: float = SHARE) -> list[Sample]:
    """The trials of a baseline that people look at, drawn now where they were not before. Raises BadInput."""
    judge_hash = baseline.scored_by.get(judge.name)
    if judge_hash is None:
        raise BadInput(f"the baseline of {baseline.at:%Y-%m-%d} was not scored by judge {judge.name}; set a new one")
    _, trials = await runtime.database.read(lambda conn: load_eval_run(conn, baseline.eval_run_id))
    taken = draw(
        trials,
        judge,
        agent=baseline.agent,
        eval_run_id=baseline.eval_run_id,
        judge_hash=judge_hash,
        share=share,
    )
    await runtime.database.write(add_samples(taken))
    return await runtime.database.read(lambda conn: load_samples(conn, baseline.eval_run_id, judge.name))


async def measured(
    runtime: Runtime, agent: str, judge: Judge, judge_hash: str
) -> tuple[Calibration | None, tuple[str, ...]]:
    """What people's labels say of the judge as it is, and why it is not to be trusted: no reason where it is.

    None where nobody has labelled trials that this judge, with this model and rubric, has scored.
    """
    found = await runtime.database.read(lambda conn: best_labelled(conn, agent, judge.name))
    current = [eval_run_id for eval_run_id, of_hash in found if of_hash == judge_hash]
    if not current:
        if found:
            return None, ("its model or rubric has changed since people's labels measured it",)
        return None, (f"nobody has labelled its trials; `handrail eval label {agent}`",)
    _, trials = await runtime.database.read(lambda conn: load_eval_run(conn, current[0]))
    labels = await runtime.database.read(lambda conn: load_labels(conn, current[0], judge.name))
    calibration = calibrate(*with_labels(judge, trials, labels))
    return calibration, distrust(calibration)
