"""How well a trial met its case, and how sure a score is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Which of a case's expected fields the observed facts match; the trial passes when all of them do."""

    fields: Mapping[str, bool]

    @property
    def passed(self) -> bool:
        return all(self.fields.values())


@dataclass(frozen=True)
class Score:
    """A mean over cases, 0 to 1, with the standard error of that mean; None with fewer than two cases."""

    mean: float
    error: float | None
    cases: int

    def __str__(self) -> str:
        spread = "" if self.error is None else f" ± {100 * self.error:.1f}"
        return f"{100 * self.mean:.1f}%{spread} ({self.cases} cases)"


def exact(expected: Mapping[str, Any], observed: Mapping[str, Any]) -> Verdict:
    """Field by field equality of value and type, inside lists and mappings too.

    A field that was not observed never matches.
    """
    return Verdict({name: name in observed and _same(observed[name], value) for name, value in expected.items()})


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


def _same(found: Any, expected: Any) -> bool:
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected)
