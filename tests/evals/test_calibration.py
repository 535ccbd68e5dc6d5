"""The statistics of a judge: known values, published figures, and simulations of what an interval covers."""

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.labels.calibration import (
    MIN_FAILURES,
    Calibration,
    Interval,
    Labelled,
    calibrate,
    cohen_kappa,
    distrust,
    kappa,
    prediction_powered,
    rogan_gladen,
    share,
    wilson,
    youden,
)

PANDALM = Path(__file__).parents[3] / "shared" / "data" / "pandalm" / "judgements.jsonl"
COVERED = (0.92, 0.98)
"""Where a 95% interval's coverage lies, four standard errors of 400 repetitions to either side at the lower end."""


def drawn(
    seed: int, *, truth: float, sensitivity: float, specificity: float, trials: int, labelled: int
) -> tuple[list[Labelled], list[tuple[str, bool]]]:
    """Trials of a case each, scored by a judge of this quality, of which people labelled so many."""
    draw = random.Random(seed)
    rows = []
    for number in range(trials):
        right = draw.random() < truth
        passed = draw.random() < (sensitivity if right else 1 - specificity)
        rows.append((str(number), right, passed))
    people = [Labelled(case_id=case, passed=passed, people=(right,)) for case, right, passed in rows[:labelled]]
    return people, [(case, passed) for case, _, passed in rows[labelled:]]


def corrected(labelled: list[Labelled], rest: list[tuple[str, bool]]) -> Interval:
    """The score that people's labels make of the judge's."""
    found = prediction_powered(
        [(each.case_id, float(each.right), float(each.passed)) for each in labelled],
        [(case, float(passed)) for case, passed in rest],
    )
    assert found is not None
    return found


def test_wilson_of_textbooks() -> None:
    """81 of 263 is 0.2553 to 0.3662 (Newcombe 1998, table I), and none of 20 is 0 to 0.1611."""
    found = wilson(81 / 263, 263)
    assert [found.low, found.high] == pytest.approx([0.2553, 0.3662], abs=1e-4)
    none = wilson(0, 20)
    assert [none.low, none.high] == pytest.approx([0, 0.1611], abs=1e-4)


def test_kappa_of_a_textbook() -> None:
    """20 and 15 agreements, 5 and 10 disagreements are a kappa of 0.4."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([(True, True)] * 9) is None
    assert cohen_kappa([]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_kappa_has_no_first_rater(pairs: list[tuple[str, str]]) -> None:
    """Exchanging the raters changes nothing, and no kappa is above 1."""
    found = cohen_kappa(pairs)
    assert found == cohen_kappa([(other, one) for one, other in pairs])
    assert found is None or found <= 1


@given(st.floats(0, 1), st.floats(0, 1), st.integers(5, 500), st.integers(5, 500))
def test_j_lies_in_its_interval(tpr: float, tnr: float, right: int, wrong: int) -> None:
    """J is sensitivity plus specificity less 1, inside an interval inside -1 to 1."""
    found = youden(wilson(tpr, right), wilson(tnr, wrong))
    assert found.estimate == pytest.approx(tpr + tnr - 1)
    assert -1 <= found.low <= found.estimate + 1e-9
    assert found.estimate - 1e-9 <= found.high <= 1


def test_trials_of_a_case_that_are_alike_count_less() -> None:
    """Ten copies of each case say no more than the cases themselves: the interval is as wide as theirs."""
    cases = [(str(number), number % 4 != 0) for number in range(40)]
    once, copied = share(cases), share(cases * 10)
    assert once is not None
    assert copied is not None
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)
    all_right = share([(str(number), True) for number in range(8)] * 10)
    assert all_right is not None
    assert all_right.low == pytest.approx(wilson(1, 8).low)


def test_prediction_powered_inference_covers_the_truth() -> None:
    """Its 95% interval holds the truth about 95% of the time, where that of the judge's raw share never does."""
    rounds, truth = 400, 0.7
    covered = raw_covered = narrower = 0
    for seed in range(rounds):
        labelled, rest = drawn(seed, truth=truth, sensitivity=0.95, specificity=0.5, trials=600, labelled=120)
        found = corrected(labelled, rest)
        covered += found.low <= truth <= found.high
        raw = (sum(each.passed for each in labelled) + sum(passed for _, passed in rest)) / 600
        raw_covered += abs(raw - truth) <= 1.96 * math.sqrt(raw * (1 - raw) / 600)
        alone = share([(each.case_id, each.right) for each in labelled])
        assert alone is not None
        narrower += found.high - found.low < alone.high - alone.low
    assert COVERED[0] <= covered / rounds <= COVERED[1]
    assert raw_covered / rounds < 0.05
    assert narrower / rounds > 0.95


def test_a_useless_judge_costs_nothing() -> None:
    """Beside a judge that guesses, the corrected score is the people's own, and its interval 3% wider at most."""
    draw = random.Random(1)
    labelled = [(str(n), float(draw.random() < 0.6), float(draw.random() < 0.5)) for n in range(100)]
    rest = [(str(n), float(draw.random() < 0.5)) for n in range(100, 500)]
    found = prediction_powered(labelled, rest)
    assert found is not None
    people = sum(label for _, label, _ in labelled) / 100
    assert found.estimate == pytest.approx(people, abs=0.02)
    assert found.high - found.low <= 1.03 * 2 * 1.96 * math.sqrt(people * (1 - people) / 99)


def test_prediction_powered_inference_over_cases() -> None:
    """Where every trial of a case is alike, the interval is over the cases and not over the trials."""
    draw = random.Random(2)
    labels = {str(n): float(draw.random() < 0.6) for n in range(100)}
    once = prediction_powered([(case, label, label) for case, label in labels.items()], [])
    copied = prediction_powered([(case, label, label) for case, label in labels.items()] * 5, [])
    assert once is not None
    assert copied is not None
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert prediction_powered([("a", 1.0, 1.0)], [("b", 1.0)]) is None


def test_rogan_gladen() -> None:
    """A share of 0.62 from a judge of 0.9 and 0.8 stands for 0.6; of a judge of no use nothing follows."""
    assert rogan_gladen(0.62, 0.8, 0.7) == pytest.approx(0.6)
    assert rogan_gladen(0.1, 0.8, 0.7) == 0
    assert rogan_gladen(0.5, 0.5, 0) is None


def known(**changed: object) -> Calibration:
    fields: dict[str, object] = {
        "labels": 200,
        "failures": 40,
        "doubled": 40,
        "sensitivity": None,
        "specificity": None,
        "j": Interval(0.7, 0.55, 0.8, ""),
        "kappa": Interval(0.7, 0.6, 0.8, ""),
        "human_kappa": Interval(0.8, 0.7, 0.9, ""),
        "raw": 0.8,
        "corrected": None,
        "rogan_gladen": None,
    }
    return Calibration(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"failures": MIN_FAILURES - 1}, "14 labelled failures, 15 are needed"),
        ({"j": Interval(0.6, 0.49, 0.7, "")}, "the lower end of J is 0.49, below 0.5"),
        ({"kappa": Interval(0.59, 0.5, 0.7, ""), "human_kappa": None}, "kappa is 0.59, below 0.6"),
        (
            {"kappa": Interval(0.7, 0.6, 0.8, ""), "human_kappa": Interval(0.86, 0.8, 0.9, "")},
            "kappa is 0.70, more than 0.15 below the 0.86 between people",
        ),
    ],
)
def test_what_makes_a_judge_distrusted(changed: dict[str, object], reason: str) -> None:
    """Each threshold distrusts by itself, in words; a judge on the right side of all is trusted."""
    assert distrust(known()) == ()
    assert distrust(known(**changed)) == (reason,)


def test_a_good_and_a_poor_judge() -> None:
    """With 200 labels a judge of 0.97 and 0.95 is trusted and one of 0.9 and 0.5 is not."""
    good, rest = drawn(3, truth=0.7, sensitivity=0.97, specificity=0.95, trials=1_000, labelled=200)
    assert distrust(calibrate(good, rest)) == ()
    poor, others = drawn(3, truth=0.7, sensitivity=0.9, specificity=0.5, trials=1_000, labelled=200)
    assert len(distrust(calibrate(poor, others))) == 2


def test_no_labels() -> None:
    """Without labels nothing is known, and the judge is distrusted."""
    found = calibrate([], [("a", True), ("b", False)])
    assert (found.j, found.kappa, found.corrected, found.raw) == (None, None, None, 0.5)
    assert distrust(found) == ("0 labelled failures, 15 are needed",)


@pytest.mark.skipif(not PANDALM.exists(), reason=f"no {PANDALM}: PandaLM's labels are not on this machine")
def test_pandalm() -> None:
    """On PandaLM's pairs the kappas are as published, 0.85 to 0.89 between people and about 0.5 for the GPT-3.5 judge,
    which is distrusted; and the score corrected from a fifth of the labels covers the people's.
    """
    rows = [json.loads(line) for line in PANDALM.read_text().splitlines()]
    between = [cohen_kappa((row["humans"][a], row["humans"][b]) for row in rows) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert all(found is not None and 0.84 <= found <= 0.89 for found in between)
    said = [{"1": 1, "2": 2, "Tie": 0}.get(row["judge_gpt35"], -1) for row in rows]
    most = [Counter(row["humans"]).most_common(1)[0][0] for row in rows]
    judged = kappa([(str(row["id"]), one, other) for row, one, other in zip(rows, most, said, strict=True)])
    assert judged is not None
    assert 0.44 <= judged.estimate <= 0.54

    marks = [(str(row["id"]), one == 1, other == 1) for row, one, other in zip(rows, most, said, strict=True)]
    truth = sum(right for _, right, _ in marks) / len(marks)
    covered = 0
    for seed in range(400):
        draw = random.Random(seed)
        again = [(str(n), *draw.choice(marks)[1:]) for n in range(len(marks))]
        people = [Labelled(case_id=case, passed=passed, people=(right,)) for case, right, passed in again[:120]]
        rest = [(case, passed) for case, _, passed in again[120:]]
        found = corrected(people, rest)
        covered += found.low <= truth <= found.high
    assert COVERED[0] <= covered / 400 <= COVERED[1]
    assert distrust(calibrate(people, rest)) != ()
