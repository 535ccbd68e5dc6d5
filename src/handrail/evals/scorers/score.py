"""The score of a trial, put together from its scorers, and the mean score of an eval run."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from handrail.evals.errors import ScorerFailed
from handrail.evals.scorer import PASS_THRESHOLD, ScorerContext, ScoreResult
from handrail.evals.spec import EvalSpec
from handrail.kernel.errors import BadInput, HandrailError

from .adapters import as_scorer


@dataclass(frozen=True)
class TrialScore:
    """How well a trial met its case.

    A score that was compared with a threshold has a field of the same name; one without is a grade and counts as it is.

    Args:
        fields: What holds and what does not, by name.
        scores: Numbers from 0 to 1, by name.
        notes: The scorers' explanations for people, by name.
    """

    fields: Mapping[str, bool]
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every field holds and every grade reaches the pass threshold of 0.5."""
        return all(self.fields.values()) and all(grade >= PASS_THRESHOLD for grade in self._grades)

    @property
    def value(self) -> float:
        """What the trial counts for, 0 to 1: the mean of its grades, or 1 where it has none; 0 if any field fails."""
        if not all(self.fields.values()):
            return 0.0
        return math.fsum(self._grades) / len(self._grades) if self._grades else 1.0

    @property
    def _grades(self) -> list[float]:
        return [score for name, score in self.scores.items() if name not in self.fields]


@dataclass(frozen=True)
class Score:
    """The mean score of an eval run.

    Args:
        mean: The mean over the cases, from 0 to 1.
        error: Its standard error; None for fewer than two cases.
        cases: How many cases were scored.
    """

    mean: float
    error: float | None
    cases: int

    def __str__(self) -> str:
        spread = "" if self.error is None else f" ± {100 * self.error:.1f}"
        return f"{100 * self.mean:.1f}%{spread} ({self.cases} cases)"


async def score_trial(spec: EvalSpec[Any, Any], context: ScorerContext) -> TrialScore:
    """Runs the scorers of an eval spec on a trial and combines their results.

    Without scorers, every expected field has to match exactly. When two scorers use the same name, the first keeps it
    and the second's is prefixed with the scorer's name.

    Args:
        spec: The eval spec whose scorers run.
        context: The trial.

    Raises:
        ScorerFailed: A scorer raised or returned an invalid score; names the scorer and the case. Handrail's own
            errors are raised as they are.
        BadInput: A scorer needs deps and the spec makes none.
    """
    if not spec.scorers:
        return score_by_equality(context.case.expect, context.observed)
    fields: dict[str, bool] = {}
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    for scorer in spec.scorers:
        name = scorer_name(scorer)
        if spec.deps is None and needs_deps(scorer):
            raise BadInput(f"scorer {name} checks a trial's deps; pass a factory for them, EvalSpec(deps=...)")
        result = await run_scorer(scorer, context)
        keys = {**result.fields, **result.scores, **result.notes}
        unique = {key: _unused_name(key, name, fields, scores, notes) for key in keys}
        fields |= {unique[key]: holds for key, holds in _fields_of(result).items()}
        scores |= {unique[key]: score for key, score in result.scores.items()}
        notes |= {unique[key]: note for key, note in result.notes.items()}
    return TrialScore(fields, scores, notes)


async def run_scorer(scorer: Any, context: ScorerContext) -> ScoreResult:
    """Runs one scorer and converts its output to a `ScoreResult`. Raises ScorerFailed if either fails."""
    name = scorer_name(scorer)
    where = f"scorer {name}, case {context.case.id}"
    try:
        output = as_scorer(scorer)(context)
        output = await output if inspect.isawaitable(output) else output
    except HandrailError:
        raise
    except Exception as error:
        raise ScorerFailed(f"{where}: {type(error).__name__}: {error}; correct the scorer") from error
    result = _to_result(name, output)
    if result is None:
        kind = type(output).__name__
        raise ScorerFailed(f"{where}: {kind} is not a score; return a bool, a number, a text or a ScoreResult")
    for key, score in result.scores.items():
        if not 0 <= score <= 1:
            raise ScorerFailed(f"{where}: {key} is {score}; scale it to the range 0 to 1")
    return result


def scorer_name(scorer: Any) -> str:
    """The name of a scorer in results: its `name`, else that of its function or class."""
    name_attribute = getattr(scorer, "name", None)
    name = (
        name_attribute
        if isinstance(name_attribute, str) and name_attribute
        else getattr(scorer, "__name__", type(scorer).__name__)
    )
    return str(name).strip("<>") or "scorer"


def needs_deps(scorer: Any) -> bool:
    """Whether a scorer checks the deps of a trial, so that the eval spec has to make them."""
    return getattr(scorer, "needs_deps", False) is True


def score_by_equality(expected: Mapping[str, Any], observed: Mapping[str, Any]) -> TrialScore:
    """Compares each expected field strictly; a field that was not observed never matches."""
    return TrialScore(
        {name: name in observed and strictly_equal(observed[name], value) for name, value in expected.items()}
    )


def mean_score(per_case: Sequence[float]) -> Score:
    """The mean over cases and its standard error.

    The error is computed over cases, not trials, since trials of the same case are not independent (Miller 2024,
    "Adding Error Bars to Evals"): the sample standard deviation (n - 1) divided by the square root of n.

    Args:
        per_case: One value per case, 0 to 1; of several trials, their mean.

    Raises:
        ValueError: There are no cases.
    """
    n = len(per_case)
    if n == 0:
        raise ValueError("a score needs at least one case")
    mean = math.fsum(per_case) / n
    if n == 1:
        return Score(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in per_case) / (n - 1)
    return Score(mean, math.sqrt(variance / n), n)


def strictly_equal(actual: Any, expected: Any) -> bool:
    """Whether value and type are equal, inside lists and mappings too."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(strictly_equal(actual[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(actual) == len(expected) and all(map(strictly_equal, actual, expected))
    return bool(actual == expected)


def _to_result(name: str, output: Any) -> ScoreResult | None:
    match output:
        case ScoreResult():
            return output
        case bool():
            return ScoreResult(fields={name: output})
        case int() | float():
            return ScoreResult(scores={name: float(output)})
        case str():
            return ScoreResult(notes={name: output})
        case _:
            return None


def _fields_of(result: ScoreResult) -> dict[str, bool]:
    """The fields of a result, with one more for each score that is compared with a threshold."""
    if result.threshold is None:
        return dict(result.fields)
    return {**result.fields, **{name: score >= result.threshold for name, score in result.scores.items()}}


def _unused_name(key: str, scorer: str, *used: Mapping[str, Any]) -> str:
    first = key if all(key not in names for names in used) else f"{scorer}: {key}"
    candidates = (first if n == 1 else f"{first} {n}" for n in count(1))
    return next(candidate for candidate in candidates if all(candidate not in names for names in used))
