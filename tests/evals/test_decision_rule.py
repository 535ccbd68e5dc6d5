"""The gate's rule, as arithmetic, and what it says in words."""

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
    absolute,
    compared,
    deflated,
    flip_rate,
    plain_rule,
    relative,
    sequential_rule,
    values_of,
)
from handrail.kernel.errors import BadInput

Case = tuple[list[Fraction], list[Fraction]]
Cases = dict[str, Case]


def of_trials(before: int, now: int) -> st.SearchStrategy[Cases]:
    """Cases with so many trials on each side, right or wrong."""
    values = st.sampled_from([Fraction(0), Fraction(1)])
    pairs = st.tuples(st.lists(values, min_size=before, max_size=before), st.lists(values, min_size=now, max_size=now))
    return st.dictionaries(st.text("abcdef", min_size=1, max_size=4), pairs, min_size=1, max_size=30)


cases = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(lambda sizes: of_trials(*sizes))
margins = st.fractions(0, Fraction(1, 2), max_denominator=100)


def sides(found: Cases) -> tuple[dict[str, list[Fraction]], dict[str, list[Fraction]]]:
    return {case: old for case, (old, _) in found.items()}, {case: new for case, (_, new) in found.items()}


def mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction()) / len(values)


def of(before: int, after: int, cases: int) -> GateVerdict:
    """The plain rule on a set of so many cases, of which the first so many pass before and after."""
    old, new = ({f"c{n:04}": [Fraction(n < right)] for n in range(cases)} for right in (before, after))
    return plain_rule(compared(old, new))


@given(cases, margins)
def test_no_final_drop_above_the_margin_passes(found: Cases, margin: Fraction) -> None:
    """Whichever rule decides, a mean drop above the margin blocks at the last look, and only such a drop does."""
    look = compared(*sides(found))
    fallen = mean([mean(old) - mean(new) for old, new in found.values()])
    verdict = sequential_rule(look, margin) or plain_rule(look, margin)
    assert (verdict.drop, verdict.passed) == (fallen, fallen <= margin)
    assert verdict.baseline - verdict.candidate == fallen


@given(cases, margins)
def test_the_sequential_rule(found: Cases, margin: Fraction) -> None:
    """It passes below the margin by Z errors, blocks above margin and zero by Z errors, and else waits."""
    look = compared(*sides(found))
    verdict = sequential_rule(look, margin)
    if look.error is None:
        assert verdict is None
        return
    drop, spread = float(look.drop), Z * look.error
    # Next to a boundary the exact arithmetic and the floats of this test may differ.
    if min(abs(drop + spread - margin), abs(drop - margin), abs(drop - spread)) > 1e-9:
        expected = True if drop + spread < margin else False if drop > margin and drop - spread > 0 else None
        assert (verdict and verdict.passed) == expected


@given(of_trials(3, 2))
def test_the_error_within_cases(found: Cases) -> None:
    """With two trials and more the error is that of trials, the cases being given: both sides' sample variances."""
    look = compared(*sides(found))
    expected = sum(variance(old) / 3 + variance(new) / 2 for old, new in found.values()) / len(found) ** 2
    assert look.variance == expected


@given(of_trials(4, 1))
def test_the_error_over_the_population(found: Cases) -> None:
    """After one trial of each case the error is that of the cases as a sample, and of a single case there is none."""
    look = compared(*sides(found))
    drops = [float(mean(old) - mean(new)) for old, new in found.values()]
    assert look.error == look.population_error
    if len(found) == 1:
        assert look.error is None
    else:
        assert look.error == pytest.approx(stdev(drops) / math.sqrt(len(drops)))


@given(cases)
def test_turned_round(found: Cases) -> None:
    """With the sides exchanged the drop changes its sign and the two lists change places."""
    look = compared(*sides(found))
    turned = compared(*reversed(sides(found)))
    assert (turned.drop, turned.variance, turned.flip) == (-look.drop, look.variance, look.flip)
    assert (turned.newly_failing, turned.newly_passing) == (look.newly_passing, look.newly_failing)
    assert list(look.newly_failing) == sorted(
        case for case, (old, new) in found.items() if mean(old) > Fraction(1, 2) > mean(new)
    )


@given(st.integers(1, 5), st.data())
def test_a_drop_of_exactly_the_margin_passes(hundreds: int, data: st.DataObject) -> None:
    """Of 100 cases and its multiples, a drop of exactly 3 points passes and one case more blocks."""
    cases = 100 * hundreds
    before = data.draw(st.integers(3 * hundreds + 1, cases))
    assert of(before, before - 3 * hundreds, cases).passed
    assert not of(before, before - 3 * hundreds - 1, cases).passed


@pytest.mark.parametrize("candidate", [["a"], ["a", "b", "c"], ["a", "c"], []])
def test_other_cases_are_not_compared(candidate: list[str]) -> None:
    """Two sides that are not of the same cases have no verdict."""
    with pytest.raises(BadInput, match="not tried on the same cases"):
        compared({"a": [Fraction(1)], "b": [Fraction(1)]}, {case: [Fraction(1)] for case in candidate})


def test_no_cases() -> None:
    """Of no cases there is no verdict."""
    with pytest.raises(BadInput, match="no cases to compare"):
        compared({}, {})


def test_values_are_exact_to_six_digits() -> None:
    """A trial's value counts as the decimal that it was written as, so that a drop of 0.03 is the margin exactly."""
    look = compared(values_of([("a", 1.0)]), values_of([("a", 0.97)]))
    assert look.drop == MARGIN
    assert plain_rule(look).passed


@given(st.lists(st.lists(st.sampled_from([Fraction(0), Fraction(1)]), min_size=2, max_size=6), min_size=1, max_size=9))
def test_the_flip_rate(found: list[list[Fraction]]) -> None:
    """It is the share of pairs of a case's trials that differ, the mean over the cases."""
    shares = []
    for values in found:
        pairs = [(i, j) for i in range(len(values)) for j in range(i)]
        shares.append(Fraction(sum(values[i] != values[j] for i, j in pairs), len(pairs)))
    assert flip_rate(found) == mean(shares)


def test_unmeasured_flips() -> None:
    """Of single trials nothing is known of flips, and no smallest drop is named."""
    verdict = of(40, 39, 50)
    assert (verdict.flip, verdict.detectable(MARGIN)) == (None, None)


@given(of_trials(3, 3).filter(lambda found: len(found) > 1), st.floats(0.2, 1), st.floats(0, 0.2))
def test_a_weak_judge_shrinks_a_drop(found: Cases, j: float, error: float) -> None:
    """The drop behind a judge's scores is the measured one divided by J, with a wider error that J's own widens."""
    look = compared(*sides(found))
    true = deflated(look, j, error)
    assert float(true.drop) == pytest.approx(float(look.drop) / j)
    assert look.error is not None
    assert true.error is not None
    assert true.error == pytest.approx(math.hypot(look.error, float(look.drop) / j * error) / j)


def test_a_margin_by_the_baseline() -> None:
    """A relative margin of 3% is 2.4 points for a baseline of 80%; an absolute one is the same for all."""
    assert relative(MARGIN)(Fraction(8, 10)) == Fraction(24, 1000)
    assert absolute(MARGIN)(Fraction(8, 10)) == MARGIN


def repeated(right: int, wrong: int, flipping: int, trials: int) -> dict[str, list[Fraction]]:
    """Cases that are always right, always wrong, and right in every second trial."""
    kinds = [[1] * trials] * right + [[0] * trials] * wrong + [[n % 2 for n in range(trials)]] * flipping
    return {f"c{number:04}": [Fraction(value) for value in kind] for number, kind in enumerate(kinds)}


@pytest.mark.parametrize(
    ("before", "now", "says"),
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
            "dropped 25.0 points, from 100.0% to 75.0%, alike in every trial; blocked",
        ),
        (
            repeated(30, 10, 10, 8),
            repeated(31, 9, 10, 8),
            (
                "rose 2.0 points, from 70.0% to 72.0%, 95% sure any drop is less than 1.4; passed; "
                "a set of 50 sees drops of 4.4 points or more, smaller ones by luck"
            ),
        ),
    ],
)
def test_in_words(before: dict[str, list[Fraction]], now: dict[str, list[Fraction]], says: str) -> None:
    """A verdict says what moved from where to where, how sure that is, and what follows from it."""
    assert str(sequential_rule(compared(before, now))) == says


@pytest.mark.parametrize(
    ("before", "after", "cases", "says"),
    [
        (8_000, 7_699, 10_000, "dropped 3.01 points, from 80.0% to 77.0%, 95% sure it is between 2.7 and 3.4; blocked"),
        (80, 77, 100, "dropped 3.0 points, from 80.0% to 77.0%, 95% sure it is between -0.4 and 6.4; passed"),
        (100, 100, 200, "stayed at 50.0%, 95% sure it is between 0.0 and 0.0; passed"),
    ],
)
def test_the_plain_rule_in_words(before: int, after: int, cases: int, says: str) -> None:
    """What the plain rule decided says so; a drop never looks like the margin it exceeds."""
    found = str(of(before, after, cases))
    limit = "more than" if found.startswith("dropped 3.01") else "up to"
    assert found == f"{says}, decided by the plain rule ({limit} 3 points)"


@given(cases, margins)
def test_in_one_line(found: Cases, margin: Fraction) -> None:
    """A verdict is one line that says `passed` or `blocked`, as it is."""
    verdict = plain_rule(compared(*sides(found)), margin)
    assert ("; passed" in str(verdict), "; blocked" in str(verdict)) == (verdict.passed, not verdict.passed)
    assert len(str(verdict).splitlines()) == 1
