"""What the gate compares: the whole score; and where a judge has a part in it, what it may not decide by itself.

A trusted judge's own score counts once more, with the drop that it shrinks made whole again. A distrusted one may
block, but the score has to hold without it too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handrail.evals.labels.calibration import Interval
from handrail.evals.labels.sampling import judges_of, measured
from handrail.evals.scorers.llm_judge import Judge
from handrail.evals.scorers.score import Verdict
from handrail.evals.store.eval_runs import Trial
from handrail.runs.agent import Trials
from handrail.runs.runtime import Runtime

from .decision_rule import GateVerdict, Look, Margin, Sides, compared, deflated, plain_rule, sequential_rule, values_of


@dataclass(frozen=True)
class Measure:
    """A number, 0 to 1, that a trial has, or None; `j` is how much of a drop in it a judge lets through."""

    name: str
    value: Callable[[Trial], float | None]
    j: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The measures that a change has to hold by, the whole score first; `distrusted` has the reasons, by judge.

    `judge_alone` says that nothing scores the trials but distrusted judges.
    """

    measures: tuple[Measure, ...]
    distrusted: Mapping[str, tuple[str, ...]]
    judge_alone: bool


async def measures_of(
    runtime: Runtime, agent: str, spec: Trials[Any, Any], before: Sequence[Trial], hashes: Mapping[str, str]
) -> Measures:
    """What a change has to hold by, with the judges as far as people's labels let them be trusted."""
    whole = Measure("", lambda trial: trial.value)
    trusted: list[Measure] = []
    distrusted: dict[str, tuple[str, ...]] = {}
    judges = judges_of(spec)
    for judge in judges:
        calibration, reasons = await measured(runtime, agent, judge, hashes[judge.name])
        if reasons:
            distrusted[judge.name] = reasons
        elif calibration is not None:
            trusted.append(Measure(f"by judge {judge.name}: score", _of_judge(judge), calibration.j))
    if not distrusted:
        return Measures(measures=(whole, *trusted), distrusted={}, judge_alone=False)
    without = Measure(
        "without distrusted judges: score", _without([each for each in judges if each.name in distrusted])
    )
    alone = all(without.value(trial) is None for trial in before if trial.error is None)
    rest = () if alone else (without,)
    return Measures(measures=(whole, *trusted, *rest), distrusted=distrusted, judge_alone=alone)


def early(
    before: Sequence[Trial], now: Sequence[Trial], measures: Sequence[Measure], margin: Margin
) -> GateVerdict | None:
    """A block as soon as one measure blocks, a pass once all pass; None where more trials are needed."""
    found = []
    for measure in measures:
        look = _look(before, now, measure)
        found.append(sequential_rule(look, margin(look.baseline), measure.name))
    return _first_block(each for each in found if each) or (found[0] if all(found) else None)


def final(before: Sequence[Trial], now: Sequence[Trial], measures: Sequence[Measure], margin: Margin) -> GateVerdict:
    """The verdict of the last look: the plain rule decides where the sequential one does not."""
    found = []
    for measure in measures:
        look = _look(before, now, measure)
        allowed = margin(look.baseline)
        found.append(sequential_rule(look, allowed, measure.name) or plain_rule(look, allowed, measure.name))
    return _first_block(found) or found[0]


def _first_block(found: Iterable[GateVerdict]) -> GateVerdict | None:
    return next((each for each in found if not each.passed), None)


def _look(before: Sequence[Trial], now: Sequence[Trial], measure: Measure) -> Look:
    """Both sides on the cases that the infrastructure left a trial of on each."""
    old, new = _sides(before, measure), _sides(now, measure)
    both = old.keys() & new.keys()
    look = compared(*({case: values for case, values in side.items() if case in both} for side in (old, new)))
    return look if measure.j is None else deflated(look, measure.j.estimate, measure.j.error)


def _sides(trials: Sequence[Trial], measure: Measure) -> Sides:
    pairs = ((each.case_id, measure.value(each)) for each in trials if each.error is None)
    return values_of((case_id, value) for case_id, value in pairs if value is not None)


def _of_judge(judge: Judge) -> Callable[[Trial], float | None]:
    def value(trial: Trial) -> float | None:
        passed = judge.verdict(trial.verdict.fields)
        return None if passed is None else float(passed)

    return value


def _without(judges: Sequence[Judge]) -> Callable[[Trial], float | None]:
    def value(trial: Trial) -> float | None:
        prefixes = tuple(f"{judge.name}/" for judge in judges)
        fields = {name: held for name, held in trial.verdict.fields.items() if not name.startswith(prefixes)}
        if not fields and not trial.verdict.scores:
            return None
        return Verdict(fields, trial.verdict.scores).value

    return value
