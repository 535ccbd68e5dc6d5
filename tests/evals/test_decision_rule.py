"""The gate's decision rule: its arithmetic and its messages."""

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import stdev, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.gate.decision_rule import (
    MARGIN,
    GateVerdict,
    Z,
    absolute_margin,
    correct_for_judge,
    flip_rate,
    interim_stats,
    plain_rule,
    relative_margin,
    sequential_rule,
    values_by_case,
)
from handrail.kernel.errors import BadInput

Case = tuple[list[Fraction], list[Fraction]]
Cases = dict[str, Case]


def cases_with_trials(before: int, now: int) -> st.SearchStrategy[Cases]:
    """Cases with trials on each side, right or wrong."""
    values = st.sampled_from([Fraction(0), Fraction(1)])
    pairs = st.tuples(st.lists(values, min_size=before, max_size=before), st.lists(values, min_size=now, max_size=now))
    return st.dictionaries(st.text("abcdef", min_size=1, max_size=4), pairs, min_size=1, max_size=30)


cases = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(lambda sizes: cases_with_trials(*sizes))
margins = st.fractions(0, Fraction(1, 2), max_denominator=100)


def sides(cases_by_id: Cases) -> tuple[dict[str, list[Fraction]], dict[str, list[Fraction]]]:
    return {case: old for case, (old, _) in cases_by_id.items()}, {case: new for case, (_, new) in cases_by_id.items()}


def mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction()) / len(values)


def plain_verdict(before: int, after: int, cases: int) -> GateVerdict:
    """The plain rule's verdict on `cases` cases, of which the first `before` and `after` pass."""
    old, new = ({f"c{n:04}": [Fraction(n < right)] for n in range(cases)} for right in (before, after))
    return plain_rule(interim_stats(old, new))


@given(cases, margins)
def test_no_final_drop_above_the_margin_passes(cases_by_id: Cases, margin: Fraction) -> None:
    """With either rule, a mean drop above the margin blocks at the last look, and no other drop does."""
    look = interim_stats(*sides(cases_by_id))
    mean_drop = mean([mean(old) - mean(new) for old, new in cases_by_id.values()])
    verdict = sequential_rule(look, margin) or plain_rule(look, margin)
    assert (verdict.drop, verdict.passed) == (mean_drop, mean_drop <= margin)
    assert verdict.baseline - verdict.candidate == mean_drop


@given(cases, margins)
def test_the_sequential_rule(cases_by_id: Cases, margin: Fraction) -> None:
    """The rule passes Z errors below the margin, blocks above it and Z errors above zero, and otherwise waits."""
    look = interim_stats(*sides(cases_by_id))
    verdict = sequential_rule(look, margin)
    if look.error is None:
        assert verdict is None
        return
    drop, spread = float(look.drop), Z * look.error
    # Next to a boundary the exact arithmetic and the floats of this test may differ.
    if min(abs(drop + spread - margin), abs(drop - margin), abs(drop - spread)) > 1e-9:
        expected = True if drop + spread < margin else False if drop > margin and drop - spread > 0 else None
        assert (verdict and verdict.passed) == expected


@given(cases_with_trials(3, 2))
def test_the_error_within_cases(cases_by_id: Cases) -> None:
    """With two or more trials of each case the error follows from the sample variances within the cases."""
    look = interim_stats(*sides(cases_by_id))
    expected = sum(variance(old) / 3 + variance(new) / 2 for old, new in cases_by_id.values()) / len(cases_by_id) ** 2
    assert look.variance == expected


@given(cases_with_trials(4, 1))
def test_the_error_over_the_population(cases_by_id: Cases) -> None:
    """With one trial of each case the error is that over the population of cases; a single case has none."""
    look = interim_stats(*sides(cases_by_id))
    drops = [float(mean(old) - mean(new)) for old, new in cases_by_id.values()]
    assert look.error == look.population_error
    if len(cases_by_id) == 1:
        assert look.error is None
    else:
        assert look.error == pytest.approx(stdev(drops) / math.sqrt(len(drops)))


@given(cases)
def test_exchanged_sides(cases_by_id: Cases) -> None:
    """Exchanging the sides negates the drop and swaps newly failing and newly passing cases."""
    look = interim_stats(*sides(cases_by_id))
    exchanged = interim_stats(*reversed(sides(cases_by_id)))
    assert (exchanged.drop, exchanged.variance, exchanged.flip) == (-look.drop, look.variance, look.flip)
    assert (exchanged.newly_failing, exchanged.newly_passing) == (look.newly_passing, look.newly_failing)
    assert list(look.newly_failing) == sorted(
        case for case, (old, new) in cases_by_id.items() if mean(old) > Fraction(1, 2) > mean(new)
    )


@given(st.integers(1, 5), st.data())
def test_a_drop_of_exactly_the_margin_passes(hundreds: int, data: st.DataObject) -> None:
    """With multiples of 100 cases, a drop of exactly 3 points passes and one more failing case blocks."""
    cases = 100 * hundreds
    before = data.draw(st.integers(3 * hundreds + 1, cases))
    assert plain_verdict(before, before - 3 * hundreds, cases).passed
    assert not plain_verdict(before, before - 3 * hundreds - 1, cases).passed


@pytest.mark.parametrize("candidate", [["a"], ["a", "b", "c"], ["a", "c"], []])
def test_other_cases_cannot_be_compared(candidate: list[str]) -> None:
    """Two sides with different cases have no verdict."""
    with pytest.raises(BadInput, match="do not have the same cases"):
        interim_stats({"a": [Fraction(1)], "b": [Fraction(1)]}, {case: [Fraction(1)] for case in candidate})


def test_no_cases() -> None:
    """Without cases there is no verdict."""
    with pytest.raises(BadInput, match="no cases to compare"):
        interim_stats({}, {})


def test_values_are_exact_to_six_digits() -> None:
    """Values are treated as decimals, so that a drop of 0.03 is exactly the margin."""
    look = interim_stats(values_by_case([("a", 1.0)]), values_by_case([("a", 0.97)]))
    assert look.drop == MARGIN
    assert plain_rule(look).passed


@given(st.lists(st.lists(st.sampled_from([Fraction(0), Fraction(1)]), min_size=2, max_size=6), min_size=1, max_size=9))
def test_the_flip_rate(cases_by_id: list[list[Fraction]]) -> None:
    """The flip rate is the share of pairs of a case's trials that differ, averaged over the cases."""
    shares = []
    for values in cases_by_id:
        pairs = [(i, j) for i in range(len(values)) for j in range(i)]
        shares.append(Fraction(sum(values[i] != values[j] for i, j in pairs), len(pairs)))
    assert flip_rate(cases_by_id) == mean(shares)


def test_unknown_flips() -> None:
    """With single trials the flip rate is unknown, and so is the smallest detectable drop."""
    verdict = plain_verdict(40, 39, 50)
    assert (verdict.flip, verdict.detectable_drop(MARGIN)) == (None, None)


@given(cases_with_trials(3, 3).filter(lambda cases_by_id: len(cases_by_id) > 1), st.floats(0.2, 1), st.floats(0, 0.2))
def test_a_weak_judge_shrinks_a_drop(cases_by_id: Cases, j: float, error: float) -> None:
    """The true drop is the judge's divided by J, and its error grows with that of J."""
    look = interim_stats(*sides(cases_by_id))
    true = correct_for_judge(look, j, error)
    assert float(true.drop) == pytest.approx(float(look.drop) / j)
    assert look.error is not None
    assert true.error is not None
    assert true.error == pytest.approx(math.hypot(look.error, float(look.drop) / j * error) / j)


def test_a_margin_by_the_baseline() -> None:
    """A relative margin of 3% is 2.4 points for a baseline of 80%; an absolute one is the same for all."""
    assert relative_margin(MARGIN)(Fraction(8, 10)) == Fraction(24, 1000)
    assert absolute_margin(MARGIN)(Fraction(8, 10)) == MARGIN


def repeated(right: int, wrong: int, flipping: int, trials: int) -> dict[str, list[Fraction]]:
    """Cases that are always right, always wrong, and right in every second trial."""
    rows = [[1] * trials] * right + [[0] * trials] * wrong + [[n % 2 for n in range(trials)]] * flipping
    return {f"c{number:04}": [Fraction(value) for value in row] for number, row in enumerate(rows)}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (
            repeated(162, 38, 0, 8),
            repeated(152, 43, 5, 2),
            "dropped 3.8 points, from 81.0% to 77.2%, 95% sure it is more than 2.6; blocked",
        ),
        (
            repeated(160, 40, 0, 8),
            repeated(159, 40, 1, 8),
            "dropped 0.2 points, from 80.0% to 79.8%, 95% sure it is less than 0.4; passed",
        ),
        (
            repeated(160, 30, 10, 8),
            repeated(161, 29, 10, 8),
            "rose 0.5 points, from 82.5% to 83.0%, 95% sure any drop is less than 0.3; passed",
        ),
        (
            repeated(200, 0, 0, 8),
            repeated(150, 50, 0, 2),
            "dropped 25.0 points, from 100.0% to 75.0%, the same in every trial; blocked",
        ),
        (
            repeated(30, 10, 10, 8),
            repeated(31, 9, 10, 8),
            (
                "rose 2.0 points, from 70.0% to 72.0%, 95% sure any drop is less than 1.4; passed; "
                "a set of 50 cases detects drops of 4.4 points four times in five"
            ),
        ),
    ],
)
def test_messages(before: dict[str, list[Fraction]], now: dict[str, list[Fraction]], message: str) -> None:
    """A verdict's message has the change of the score, its confidence and the decision."""
    assert str(sequential_rule(interim_stats(before, now))) == message


@pytest.mark.parametrize(
    ("before", "after", "cases", "message"),
    [
        (8_000, 7_699, 10_000, "dropped 3.01 points, from 80.0% to 77.0%, 95% sure it is between 2.7 and 3.4; blocked"),
        (80, 77, 100, "dropped 3.0 points, from 80.0% to 77.0%, 95% sure it is between -0.4 and 6.4; passed"),
        (100, 100, 200, "stayed at 50.0%, 95% sure it is between 0.0 and 0.0; passed"),
    ],
)
def test_messages_of_the_plain_rule(before: int, after: int, cases: int, message: str) -> None:
    """The message names the plain rule, and a drop is never rounded to the margin that it exceeds."""
    text = str(plain_verdict(before, after, cases))
    limit = "more than" if text.startswith("dropped 3.01") else "up to"
    assert text == f"{message}, decided by the plain rule ({limit} 3 points)"


@given(cases, margins)
def test_messages_are_one_line(cases_by_id: Cases, margin: Fraction) -> None:
    """A verdict's message is one line with `passed` or `blocked`."""
    verdict = plain_rule(interim_stats(*sides(cases_by_id)), margin)
    assert ("; passed" in str(verdict), "; blocked" in str(verdict)) == (verdict.passed, not verdict.passed)
    assert len(str(verdict).splitlines()) == 1
