"""The arithmetic of scores, and exact matches."""

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.scorers.score import Score, TrialScore, mean_score, score_by_equality

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(st.sampled_from("pqrs"), json_values, max_size=4)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=200))
def test_mean_and_error(per_case: list[float]) -> None:
    """A score is the mean and its standard error, as computed with the statistics module."""
    score = mean_score(per_case)
    assert score.cases == len(per_case)
    assert score.mean == pytest.approx(statistics.fmean(per_case), abs=1e-12)
    assert score.error == pytest.approx(statistics.stdev(per_case) / math.sqrt(len(per_case)), abs=1e-9)


@given(passed=st.integers(0, 50), failed=st.integers(0, 50))
def test_mean_and_error_of_passes(passed: int, failed: int) -> None:
    """For passes and failures, the mean is the share that passed, and the error that of a proportion with n - 1."""
    n = passed + failed
    if n < 2:
        return
    score = mean_score([1.0] * passed + [0.0] * failed)
    share = passed / n
    assert score.mean == pytest.approx(share)
    assert score.error == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)))


def test_few_cases() -> None:
    """One case has a mean without an error; without cases there is no score."""
    assert mean_score([0.5]) == Score(0.5, None, 1)
    with pytest.raises(ValueError, match="at least one case"):
        mean_score([])


def test_score_as_text() -> None:
    """A score is printed in percent, with its error if it has one."""
    assert str(Score(0.7123, 0.0456, 88)) == "71.2% ± 4.6 (88 cases)"
    assert str(Score(1.0, None, 1)) == "100.0% (1 cases)"


@given(facts)
def test_a_match(expected: dict[str, Any]) -> None:
    """Fields match themselves, and further observed fields are ignored."""
    score = score_by_equality(expected, {**expected, "more": 1})
    assert score.passed
    assert score.fields == dict.fromkeys(expected, True)


@given(expected=facts, observed=facts)
def test_field_by_field(expected: dict[str, Any], observed: dict[str, Any]) -> None:
    """A trial passes if every expected field was observed with an equal value of the same type."""
    score = score_by_equality(expected, observed)
    assert score.fields.keys() == expected.keys()
    for name, matches in score.fields.items():
        # In repr, True, 1 and 1.0 differ, as they should; so do -0.0 and 0.0, which are equal.
        same = name in observed and _text(observed[name]) == _text(expected[name])
        assert matches == same
    assert score.passed == all(score.fields.values())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "mapping" + repr(sorted((key, _text(item)) for key, item in value.items()))
    if isinstance(value, list):
        return repr([_text(item) for item in value])
    return repr(value + 0.0 if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("expected", "observed"),
    [(True, 1), (1, 1.0), ("1042", 1042), (None, ""), ([True], [1]), ({"a": 1}, {"a": True}), ([1], (1,)), ([], [1])],
)
def test_types_matter(expected: object, observed: object) -> None:
    """A value of another type does not match, inside lists and mappings too."""
    assert not score_by_equality({"field": expected}, {"field": observed}).passed


def test_a_field_that_was_not_observed() -> None:
    """A field that was not observed does not match, even where None is expected."""
    assert score_by_equality({"order": None}, {}) == TrialScore({"order": False})
