"""Scorers that compare the fields a case expects with what `observe` extracted from a trial.

    fields(total=close(absolute=0.01), vendor=normalised())     # every other expected field has to match exactly

A field that a case expects and that was not observed never holds.
"""

import math
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from handrail.evals.scorer import ScorerContext, ScoreResult
from handrail.kernel.errors import BadInput

from .score import strictly_equal

_NOTE_LENGTH = 200


class Comparator(Protocol):
    """Decides whether two single values match, neither of them a list or a mapping."""

    def matches(self, expected: Any, actual: Any) -> bool:
        """Whether the observed value is as good as the expected one.

        Args:
            expected: What the case expects.
            actual: What was observed.

        Returns:
            True when they match.
        """
        ...


class FieldScorer(Comparator, Protocol):
    """A scorer of the expected fields that is also the comparator of a single one, as an argument of `fields`."""

    def __call__(self, context: ScorerContext, /) -> ScoreResult:
        """Compares the fields that the case expects.

        Args:
            context: The trial.

        Returns:
            Which fields match, with a note on each that does not.
        """
        ...


@dataclass(frozen=True)
class ExactMatch:
    """Values match when they are equal in value and type."""

    def matches(self, expected: Any, actual: Any) -> bool:
        """Whether value and type are equal."""
        return strictly_equal(actual, expected)


@dataclass(frozen=True)
class NormalisedMatch:
    """Texts match after Unicode normalisation (NFKC), case folding and collapsing white space; other values exactly.

    Characters whose Unicode category starts with a letter in `drop` ("P" for punctuation) are removed first.
    """

    drop: str = ""

    def matches(self, expected: Any, actual: Any) -> bool:
        """Whether two texts are equal once normalised."""
        if isinstance(expected, str) and isinstance(actual, str):
            return self._normalise(expected) == self._normalise(actual)
        return strictly_equal(actual, expected)

    def _normalise(self, text: str) -> str:
        # NFKC once more at the end, since case folding can produce text that is not in that form.
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        kept = "".join(char for char in folded if unicodedata.category(char)[0] not in self.drop)
        return " ".join(kept.split())


@dataclass(frozen=True)
class NumericMatch:
    """Numbers match within `absolute`, or within `relative` (0.01 is 1%) of the expected one; other values exactly."""

    absolute: float = 0.0
    relative: float = 0.0

    def matches(self, expected: Any, actual: Any) -> bool:
        """Whether two numbers differ by at most the larger tolerance."""
        if not (_is_number(expected) and _is_number(actual)):
            return strictly_equal(actual, expected)
        if not math.isfinite(actual):
            return False
        return bool(abs(actual - expected) <= max(self.absolute, self.relative * abs(expected)))


@dataclass(frozen=True)
class Fields:
    """Compares the expected fields, and notes where one differs. It is itself a comparator for a single field."""

    comparators: tuple[tuple[str, Comparator], ...] = ()
    default: Comparator = ExactMatch()
    only: tuple[str, ...] = ()
    name: str = "fields"

    def __call__(self, context: ScorerContext) -> ScoreResult:
        """Compares each expected field with its comparator, or with the default one."""
        comparators = dict(self.comparators)
        fields: dict[str, bool] = {}
        notes: dict[str, str] = {}
        for name, expected in context.case.expect.items():
            if self.only and name not in self.only:
                continue
            comparator = comparators.get(name, self.default)
            if name in context.observed:
                mismatch = _first_mismatch(name, expected, context.observed[name], comparator)
            else:
                mismatch = f"{name}: missing"
            fields[name] = mismatch is None
            if mismatch is not None:
                notes[name] = mismatch
        return ScoreResult(fields=fields, notes=notes)

    def matches(self, expected: Any, actual: Any) -> bool:
        """Whether two values match by the default comparator."""
        return self.default.matches(expected, actual)


def exact(*only: str) -> FieldScorer:
    """Requires the expected fields to be equal in value and type, inside lists and mappings too.

    Args:
        only: The fields to compare; all expected fields when none is given.

    Returns:
        The scorer, which is also a comparator for `fields`.
    """
    return Fields(only=only, name="exact")


def normalised(*only: str, drop: str = "") -> FieldScorer:
    """Like `exact`, but ignores case, white space and Unicode forms in texts.

    Args:
        only: The fields to compare; all expected fields when none is given.
        drop: First letters of Unicode categories to ignore as well; `"P"` ignores punctuation.

    Returns:
        The scorer, which is also a comparator for `fields`.
    """
    return Fields(default=NormalisedMatch(drop), only=only, name="normalised")


def close(*only: str, absolute: float = 0.0, relative: float = 0.0) -> FieldScorer:
    """Like `exact`, but numbers may differ by a tolerance, the larger of the two where both are given.

    Args:
        only: The fields to compare; all expected fields when none is given.
        absolute: The largest difference allowed.
        relative: The largest difference allowed as a share of the expected number; 0.01 is 1%.

    Returns:
        The scorer, which is also a comparator for `fields`.

    Raises:
        BadInput: No tolerance is above 0, or one is negative or not finite.
    """
    if not (absolute >= 0 and relative >= 0 and math.isfinite(absolute + relative) and absolute + relative > 0):
        raise BadInput(f"close: absolute={absolute}, relative={relative}; give a tolerance above 0")
    return Fields(default=NumericMatch(absolute, relative), only=only, name="close")


def fields(**comparators: Comparator) -> FieldScorer:
    """Compares each expected field in its own way, such as `total=close(absolute=0.01)`.

    Meant for extraction: the result has each field separately, with a note on the first difference inside a list or
    mapping.

    Args:
        comparators: How to compare a field, by its name; fields without one have to match exactly.

    Returns:
        The scorer.
    """
    return Fields(comparators=tuple(sorted(comparators.items())))


def _first_mismatch(where: str, expected: Any, actual: Any, comparator: Comparator) -> str | None:
    """The first place at which two values differ, and how; None when they match."""
    same_type = type(expected) is type(actual)
    if same_type and isinstance(expected, dict):
        if expected.keys() != actual.keys():
            names = sorted(map(str, expected.keys() ^ actual.keys()))
            return f"{where}: only one side has {', '.join(names)}"[:_NOTE_LENGTH]
        parts = ((f"{where}.{key}", expected[key], actual[key]) for key in expected)
    elif same_type and isinstance(expected, list):
        if len(expected) != len(actual):
            return f"{where}: {len(expected)} expected, {len(actual)} found"
        parts = ((f"{where}[{n}]", *pair) for n, pair in enumerate(zip(expected, actual, strict=True)))
    elif comparator.matches(expected, actual):
        return None
    else:
        return f"{where}: {expected!r} expected, {actual!r} found"[:_NOTE_LENGTH]
    mismatches = (_first_mismatch(*part, comparator) for part in parts)
    return next((mismatch for mismatch in mismatches if mismatch is not None), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
