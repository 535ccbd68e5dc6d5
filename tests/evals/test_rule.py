"""The gate's plain rule, as arithmetic, and what it says in words."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals import MARGIN, GateVerdict, plain_rule
from handrail.evals.rule import case_scores
from handrail.kernel import BadInput

UP_TO_3 = "up to 3 points may be lost"
SMALL = "cannot see small drops, since one case is"

shares = st.fractions(0, 1, max_denominator=8)
pairs = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.tuples(shares, shares), min_size=1, max_size=40)
margins = st.fractions(0, Fraction(1, 2), max_denominator=100)


def judged(both: dict[str, tuple[Fraction, Fraction]], margin: Fraction = MARGIN) -> GateVerdict:
    return plain_rule(
        {case: old for case, (old, _) in both.items()}, {case: new for case, (_, new) in both.items()}, margin
    )


def of(before: int, after: int, cases: int) -> GateVerdict:
    """The verdict on a set of so many cases, of which the first so many pass before and after."""
    old, new = ({f"c{n:04}": Fraction(n < right) for n in range(cases)} for right in (before, after))
    return plain_rule(old, new)


@given(pairs, margins)
def test_no_drop_above_the_margin_passes(both: dict[str, tuple[Fraction, Fraction]], margin: Fraction) -> None:
    """The gate blocks exactly where the mean per case fell by more than the margin, in exact arithmetic."""
    found = judged(both, margin)
    fallen = sum((old - new for old, new in both.values()), Fraction()) / len(both)
    assert (found.drop, found.passed) == (fallen, fallen <= margin)
    assert found.baseline - found.candidate == found.drop
    assert (found.margin, found.cases) == (margin, len(both))


@given(st.integers(1, 5), st.data())
def test_a_drop_of_exactly_the_margin_passes(hundreds: int, data: st.DataObject) -> None:
    """Of 100 cases and its multiples, a drop of exactly 3 points passes and one case more blocks."""
    cases = 100 * hundreds
    before = data.draw(st.integers(3 * hundreds + 1, cases))
    assert of(before, before - 3 * hundreds, cases).passed
    assert not of(before, before - 3 * hundreds - 1, cases).passed


@given(pairs)
def test_every_case_is_worse_better_or_as_before(both: dict[str, tuple[Fraction, Fraction]]) -> None:
    """Newly failing and newly passing are the cases that moved, each in the one list of its direction, sorted."""
    found = judged(both)
    for case, (old, new) in both.items():
        assert (case in found.newly_failing) == (new < old)
        assert (case in found.newly_passing) == (new > old)
    assert list(found.newly_failing) == sorted(set(found.newly_failing))
    assert list(found.newly_passing) == sorted(set(found.newly_passing))


@given(pairs)
def test_turned_round(both: dict[str, tuple[Fraction, Fraction]]) -> None:
    """With the sides exchanged the drop changes its sign and the two lists change places."""
    found, turned = judged(both), judged({case: (new, old) for case, (old, new) in both.items()})
    assert turned.drop == -found.drop
    assert (turned.newly_failing, turned.newly_passing) == (found.newly_passing, found.newly_failing)


@given(pairs)
def test_the_same_scores_pass(both: dict[str, tuple[Fraction, Fraction]]) -> None:
    """A candidate with the baseline's scores passes, whatever they are."""
    found = judged({case: (old, old) for case, (old, _) in both.items()})
    assert found.passed
    assert found.drop == 0
    assert not found.newly_failing + found.newly_passing


@pytest.mark.parametrize("candidate", [{"a": 1}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}, {}])
def test_other_cases_are_not_compared(candidate: dict[str, int]) -> None:
    """Two sides that are not of the same cases have no verdict."""
    with pytest.raises(BadInput, match="not tried on the same cases"):
        plain_rule({"a": Fraction(1), "b": Fraction(1)}, {case: Fraction(share) for case, share in candidate.items()})


def test_no_cases() -> None:
    """Of no cases there is no verdict."""
    with pytest.raises(BadInput, match="no cases to compare"):
        plain_rule({}, {})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20))
def test_the_score_of_a_case(trials: list[tuple[str, bool]]) -> None:
    """A case's score is the share of its trials that passed, and a case without a trial has none."""
    found = case_scores(trials)
    assert found.keys() == {case for case, _ in trials}
    for case, share in found.items():
        mine = [passed for name, passed in trials if name == case]
        assert share * len(mine) == mine.count(True)


@pytest.mark.parametrize(
    ("before", "after", "cases", "says"),
    [
        (810, 769, 1_000, "score fell 4.1 points, from 81.0% to 76.9%; more than 3 points blocks"),
        (8_000, 7_699, 10_000, "score fell 3.01 points, from 80.0% to 77.0%; more than 3 points blocks"),
        (80, 77, 100, "passed: score fell 3.0 points, from 80.0% to 77.0%; " + UP_TO_3),
        (80, 90, 100, "passed: score rose 10.0 points, from 80.0% to 90.0%; " + UP_TO_3),
        (100, 100, 200, "passed: score stayed at 50.0%; " + UP_TO_3),
        (
            40,
            39,
            50,
            f"passed: score fell 2.0 points, from 80.0% to 78.0%; {UP_TO_3}; a set of 50 {SMALL} 2.0 points",
        ),
    ],
)
def test_in_words(before: int, after: int, cases: int, says: str) -> None:
    """A verdict says what moved from where to where and what blocks; a drop never looks like the margin it exceeds."""
    assert str(of(before, after, cases)) == says


@given(pairs, margins)
def test_in_one_line(both: dict[str, tuple[Fraction, Fraction]], margin: Fraction) -> None:
    """A verdict is one line, and it begins with `passed` exactly where it passed."""
    found = judged(both, margin)
    assert str(found).startswith("passed: ") == found.passed
    assert len(str(found).splitlines()) == 1
