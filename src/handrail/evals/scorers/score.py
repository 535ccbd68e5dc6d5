"""How well a trial met its case, and how sure a score is."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

from handrail.kernel.errors import BadInput, HandrailError
from handrail.runs.agent import Trials

from .adapters import as_scorer
from .base import HALF, Scored, Seen


class ScorerFailed(HandrailError):
    """A scorer raised, or gave what is no score: mend the scorer. It says nothing about the agent."""

    code: ClassVar[str] = "scorer_failed"


@dataclass(frozen=True)
class Verdict:
    """How a trial met its case: what held and what did not, the scores behind it, and what scorers noted.

    A score that was held against a threshold has a field of its name; one without is a grade, and counts as it is.
    """

    fields: Mapping[str, bool]
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every field holds and every grade is at least a half."""
        return all(self.fields.values()) and all(grade >= HALF for grade in self._grades)

    @property
    def value(self) -> float:
        """What the trial counts for, 0 to 1: the mean of its grades, or 1 for a pass where there are none.

        A field that does not hold makes it 0 both ways.
        """
        if not all(self.fields.values()):
            return 0.0
        return math.fsum(self._grades) / len(self._grades) if self._grades else 1.0

    @property
    def _grades(self) -> list[float]:
        return [score for name, score in self.scores.items() if name not in self.fields]


@dataclass(frozen=True)
class Score:
    """A mean over cases, 0 to 1, with the standard error of that mean; None with fewer than two cases."""

    mean: float
    error: float | None
    cases: int

    def __str__(self) -> str:
        spread = "" if self.error is None else f" ± {100 * self.error:.1f}"
        return f"{100 * self.mean:.1f}%{spread} ({self.cases} cases)"


async def verdict_of(spec: Trials[Any, Any], seen: Seen) -> Verdict:
    """What the set's scorers say of a trial, put together; without scorers, every expected field has to match exactly.

    A name that two scorers use is the first one's; the second's has the scorer's name before it. Raises ScorerFailed,
    which names the scorer and the case, and BadInput where one needs deps and the set makes none; errors of Handrail's
    own tree pass through.
    """
    if not spec.scorers:
        return all_equal(seen.case.expect, seen.observed)
    fields: dict[str, bool] = {}
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    for scorer in spec.scorers:
        name = name_of(scorer)
        if spec.deps is None and needs_deps(scorer):
            raise BadInput(f"scorer {name} looks at a trial's deps; give the set a factory, Trials(deps=...)")
        said = await ask(scorer, seen)
        names = {key: _free(key, name, fields, scores, notes) for key in {**said.fields, **said.scores, **said.notes}}
        fields |= {names[key]: held for key, held in _held(said).items()}
        scores |= {names[key]: score for key, score in said.scores.items()}
        notes |= {names[key]: note for key, note in said.notes.items()}
    return Verdict(fields, scores, notes)


async def ask(scorer: Any, seen: Seen) -> Scored:
    """What one scorer says, whatever form it gave it. Raises ScorerFailed."""
    name = name_of(scorer)
    where = f"scorer {name}, case {seen.case.id}"
    try:
        said = as_scorer(scorer)(seen)
        found = await said if inspect.isawaitable(said) else said
    except HandrailError:
        raise
    except Exception as error:
        raise ScorerFailed(f"{where}: {type(error).__name__}: {error}; mend the scorer") from error
    scored = _scored(name, found)
    if scored is None:
        raise ScorerFailed(f"{where}: {type(found).__name__} is no score; return a bool, a number, a text or Scored")
    for key, score in scored.scores.items():
        if not 0 <= score <= 1:
            raise ScorerFailed(f"{where}: {key} is {score}; scale it to lie in 0 to 1")
    return scored


def name_of(scorer: Any) -> str:
    """What a scorer is called in verdicts: its `name`, else that of its function or class."""
    own = getattr(scorer, "name", None)
    found = own if isinstance(own, str) and own else getattr(scorer, "__name__", type(scorer).__name__)
    return str(found).strip("<>") or "scorer"


def needs_deps(scorer: Any) -> bool:
    """Whether a scorer looks at the world that a trial leaves, so that the set has to make one for each."""
    return getattr(scorer, "needs_deps", False) is True


def all_equal(expected: Mapping[str, Any], observed: Mapping[str, Any]) -> Verdict:
    """Field by field equality of value and type, inside lists and mappings too.

    A field that was not observed never matches.
    """
    return Verdict({name: name in observed and same(observed[name], value) for name, value in expected.items()})


def score(per_case: Sequence[float]) -> Score:
    """The mean of one number per case (of several trials, their mean) and its standard error over the cases.

    The error is the sample standard deviation (n - 1) divided by the square root of n. Raises ValueError for no cases.
    """
    n = len(per_case)
    if n == 0:
        raise ValueError("a score needs at least one case")
    mean = math.fsum(per_case) / n
    if n == 1:
        return Score(mean, None, n)
    variance = math.fsum((each - mean) ** 2 for each in per_case) / (n - 1)
    return Score(mean, math.sqrt(variance / n), n)


def same(found: Any, expected: Any) -> bool:
    """Equality of value and type, inside lists and mappings too."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def _scored(name: str, said: Any) -> Scored | None:
    match said:
        case Scored():
            return said
        case bool():
            return Scored(fields={name: said})
        case int() | float():
            return Scored(scores={name: float(said)})
        case str():
            return Scored(notes={name: said})
        case _:
            return None


def _held(said: Scored) -> dict[str, bool]:
    """The fields of what a scorer said, with one more for each score that was held against its threshold."""
    if said.threshold is None:
        return dict(said.fields)
    return {**said.fields, **{name: score >= said.threshold for name, score in said.scores.items()}}


def _free(key: str, scorer: str, *taken: Mapping[str, Any]) -> str:
    first = key if all(key not in each for each in taken) else f"{scorer}: {key}"
    names = (first if n == 1 else f"{first} {n}" for n in count(1))
    return next(name for name in names if all(name not in each for each in taken))
