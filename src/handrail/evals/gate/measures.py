"""What the gate compares: the whole score, and further measures where a judge takes part in it.

A judge is a classifier with errors of its own, measured against people's labels. Of a trusted judge, its own score is
compared once more, with the drop corrected for those errors: they make a drop look smaller than it is. A judge that is
not trusted may block a change, but cannot pass it: the score without that judge has to hold too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handrail.evals.labels.calibration import Interval
from handrail.evals.labels.sampling import judges_in, measure_judge
from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.scorers.score import TrialScore
from handrail.evals.spec import EvalSpec
from handrail.evals.store.eval_runs import Trial
from handrail.runs.runtime import Runtime

from .decision_rule import (
    CaseValues,
    GateVerdict,
    InterimStats,
    Margin,
    correct_for_judge,
    interim_stats,
    plain_rule,
    sequential_rule,
    values_by_case,
)


@dataclass(frozen=True)
class Measure:
    """A value from 0 to 1 of each trial, or None; `j` is the J (TPR + TNR - 1) of the judge that gave it."""

    name: str
    value: Callable[[Trial], float | None]
    j: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The measures that a change has to pass, the whole score first.

    `distrusted` has the reasons why a judge is not trusted, by the judge's name. `judge_alone` is true if nothing but
    such judges scores the trials.
    """

    measures: tuple[Measure, ...]
    distrusted: Mapping[str, tuple[str, ...]]
    judge_alone: bool


async def load_measures(
    runtime: Runtime, spec: EvalSpec[Any, Any], baseline: Sequence[Trial], hashes: Mapping[str, str]
) -> Measures:
    """The measures for this spec, which depend on what people's labels say of its judges.

    Args:
        runtime: Where the labels are stored.
        spec: What the candidate is evaluated by.
        baseline: The baseline's trials.
        hashes: The hash of each of the spec's scorers, by name.
    """
    whole = Measure("", lambda trial: trial.value)
    trusted: list[Measure] = []
    distrusted: dict[str, tuple[str, ...]] = {}
    judges = judges_in(spec)
    for judge in judges:
        calibration, reasons = await measure_judge(runtime, spec.name, judge, hashes[judge.name])
        if reasons:
            distrusted[judge.name] = reasons
        elif calibration is not None:
            trusted.append(Measure(f"by judge {judge.name}: score", _value_by(judge), calibration.j))
    if not distrusted:
        return Measures(measures=(whole, *trusted), distrusted={}, judge_alone=False)
    value_without = _value_without([judge for judge in judges if judge.name in distrusted])
    judge_alone = all(value_without(trial) is None for trial in baseline if trial.error is None)
    rest = () if judge_alone else (Measure("without distrusted judges: score", value_without),)
    return Measures(measures=(whole, *trusted, *rest), distrusted=distrusted, judge_alone=judge_alone)


def interim_verdict(
    baseline: Sequence[Trial], candidate: Sequence[Trial], measures: Sequence[Measure], margin: Margin
) -> GateVerdict | None:
    """The verdict after an interim look: a block as soon as one measure blocks, a pass once all pass.

    Args:
        baseline: The baseline's trials.
        candidate: The candidate's trials so far.
        measures: What is compared, the whole score first.
        margin: How far a score may drop.

    Returns:
        The verdict; None if more trials are needed.
    """
    verdicts = []
    for measure in measures:
        stats = _stats(baseline, candidate, measure)
        verdicts.append(sequential_rule(stats, margin(stats.baseline), measure.name))
    return _first_block(verdict for verdict in verdicts if verdict) or (verdicts[0] if all(verdicts) else None)


def final_verdict(
    baseline: Sequence[Trial], candidate: Sequence[Trial], measures: Sequence[Measure], margin: Margin
) -> GateVerdict:
    """The verdict after the last look: if the sequential rule leaves it open, the plain rule decides.

    Args:
        baseline: The baseline's trials.
        candidate: All of the candidate's trials.
        measures: What is compared, the whole score first.
        margin: How far a score may drop.
    """
    verdicts = []
    for measure in measures:
        stats = _stats(baseline, candidate, measure)
        allowed = margin(stats.baseline)
        verdicts.append(sequential_rule(stats, allowed, measure.name) or plain_rule(stats, allowed, measure.name))
    return _first_block(verdicts) or verdicts[0]


def _first_block(verdicts: Iterable[GateVerdict]) -> GateVerdict | None:
    return next((verdict for verdict in verdicts if not verdict.passed), None)


def _stats(baseline: Sequence[Trial], candidate: Sequence[Trial], measure: Measure) -> InterimStats:
    """Compares both sides on their shared cases; trials that the infrastructure failed are left out."""
    old, new = _values(baseline, measure), _values(candidate, measure)
    shared = old.keys() & new.keys()
    stats = interim_stats(*({case: values for case, values in side.items() if case in shared} for side in (old, new)))
    return stats if measure.j is None else correct_for_judge(stats, measure.j.estimate, measure.j.error)


def _values(trials: Sequence[Trial], measure: Measure) -> CaseValues:
    pairs = ((trial.case_id, measure.value(trial)) for trial in trials if trial.error is None)
    return values_by_case((case_id, value) for case_id, value in pairs if value is not None)


def _value_by(judge: Judge) -> Callable[[Trial], float | None]:
    """The value of a trial by this judge alone."""

    def value(trial: Trial) -> float | None:
        passed = judge.passed(trial.score.fields)
        return None if passed is None else float(passed)

    return value


def _value_without(judges: Sequence[Judge]) -> Callable[[Trial], float | None]:
    """The value of a trial without the fields of these judges; None where nothing else scored it."""

    def value(trial: Trial) -> float | None:
        prefixes = tuple(f"{judge.name}/" for judge in judges)
        fields = {name: held for name, held in trial.score.fields.items() if not name.startswith(prefixes)}
        if not fields and not trial.score.scores:
            return None
        return TrialScore(fields, trial.score.scores).value

    return value
