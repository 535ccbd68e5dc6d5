"""Scores as arithmetic, and what counts as an exact match."""

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.scorers.score import Score, Verdict, all_equal, score

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(st.sampled_from("pqrs"), json_values, max_size=4)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=200))
def test_mean_and_error(per_case: list[float]) -> None:
    """A score is the mean and the standard error of the mean that the statistics module finds."""
    found = score(per_case)
    assert found.cases == len(per_case)
    assert found.mean == pytest.approx(statistics.fmean(per_case), abs=1e-12)
    assert found.error == pytest.approx(statistics.stdev(per_case) / math.sqrt(len(per_case)), abs=1e-9)


@given(passed=st.integers(0, 50), failed=st.integers(0, 50))
def test_passes(passed: int, failed: int) -> None:
    """Of passes and fails, the mean is the share that passed, and the error that of a proportion with n - 1."""
    n = passed + failed
    if n < 2:
        return
    found = score([1.0] * passed + [0.0] * failed)
    share = passed / n
    assert found.mean == pytest.approx(share)
    assert found.error == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)))


def test_few_cases() -> None:
    """One case has a mean without an error, and no case has no score."""
    assert score([0.5]) == Score(0.5, None, 1)
    with pytest.raises(ValueError, match="at least one case"):
        score([])


def test_scores_are_shown() -> None:
    """A score is shown in percent, with its error where it has one."""
    assert str(Score(0.7123, 0.0456, 88)) == "71.2% ± 4.6 (88 cases)"
    assert str(Score(1.0, None, 1)) == "100.0% (1 cases)"


@given(facts)
def test_a_match(expected: dict[str, Any]) -> None:
    """Facts match themselves, and more that was observed is not asked about."""
    verdict = all_equal(expected, {**expected, "more": 1})
    assert verdict.passed
    assert verdict.fields == dict.fromkeys(expected, True)


@given(expected=facts, observed=facts)
def test_field_by_field(expected: dict[str, Any], observed: dict[str, Any]) -> None:
    """A trial passes when every expected field was observed with the same JSON text, numbers' types included."""
    verdict = all_equal(expected, observed)
    assert verdict.fields.keys() == expected.keys()
    for name, matches in verdict.fields.items():
        # In repr, True, 1 and 1.0 differ; -0.0 and 0.0 do too, and are equal.
        same = name in observed and _text(observed[name]) == _text(expected[name])
        assert matches == same
    assert verdict.passed == all(verdict.fields.values())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "mapping" + repr(sorted((key, _text(each)) for key, each in value.items()))
    if isinstance(value, list):
        return repr([_text(each) for each in value])
    return repr(value + 0.0 if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("expected", "observed"),
    [(True, 1), (1, 1.0), ("1042", 1042), (None, ""), ([True], [1]), ({"a": 1}, {"a": True}), ([1], (1,)), ([], [1])],
)
def test_types_count(expected: object, observed: object) -> None:
    """A value of another type does not match, inside lists and mappings too."""
    assert not all_equal({"field": expected}, {"field": observed}).passed


def test_what_was_not_observed() -> None:
    """A field that was not observed does not match, even where None is expected."""
    assert all_equal({"order": None}, {}) == Verdict({"order": False})
