"""The statistics of a judge: known values, published figures, and simulated coverage of the intervals."""

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
    Interval,
    JudgeCalibration,
    LabelledTrial,
    calibrate_judge,
    cohen_kappa,
    distrust_reasons,
    kappa,
    prediction_powered,
    rogan_gladen,
    share_over_cases,
    wilson_interval,
    youden_j,
)

PANDALM = Path(__file__).parents[3] / "shared" / "data" / "pandalm" / "judgements.jsonl"
COVERED = (0.92, 0.98)
"""The accepted coverage of a 95% interval in 400 repetitions."""


def draw_trials(
    seed: int, *, truth: float, sensitivity: float, specificity: float, trials: int, labelled: int
) -> tuple[list[LabelledTrial], list[tuple[str, bool]]]:
    """Simulated trials, one per case, scored by a judge of this quality; the first `labelled` have labels."""
    draw = random.Random(seed)
    rows = []
    for number in range(trials):
        right = draw.random() < truth
        passed = draw.random() < (sensitivity if right else 1 - specificity)
        rows.append((str(number), right, passed))
    people = [LabelledTrial(case_id=case, passed=passed, people=(right,)) for case, right, passed in rows[:labelled]]
    return people, [(case, passed) for case, _, passed in rows[labelled:]]


def corrected(labelled: list[LabelledTrial], rest: list[tuple[str, bool]]) -> Interval:
    """The judge's score, corrected by the labels."""
    interval = prediction_powered(
        [(trial.case_id, float(trial.right), float(trial.passed)) for trial in labelled],
        [(case, float(passed)) for case, passed in rest],
    )
    assert interval is not None
    return interval


def test_wilson_interval_of_published_examples() -> None:
    """For 81 of 263 the interval is 0.2553 to 0.3662 (Newcombe 1998, table I), for 0 of 20 it is 0 to 0.1611."""
    interval = wilson_interval(81 / 263, 263)
    assert [interval.low, interval.high] == pytest.approx([0.2553, 0.3662], abs=1e-4)
    none = wilson_interval(0, 20)
    assert [none.low, none.high] == pytest.approx([0, 0.1611], abs=1e-4)


def test_kappa_of_a_textbook() -> None:
    """20 and 15 agreements, 5 and 10 disagreements are a kappa of 0.4."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([(True, True)] * 9) is None
    assert cohen_kappa([]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_kappa_is_symmetric(pairs: list[tuple[str, str]]) -> None:
    """Exchanging the raters changes nothing, and no kappa is above 1."""
    value = cohen_kappa(pairs)
    assert value == cohen_kappa([(other, one) for one, other in pairs])
    assert value is None or value <= 1


@given(st.floats(0, 1), st.floats(0, 1), st.integers(5, 500), st.integers(5, 500))
def test_j_is_in_its_interval(tpr: float, tnr: float, right: int, wrong: int) -> None:
    """J is sensitivity plus specificity minus 1, in an interval within -1 to 1."""
    interval = youden_j(wilson_interval(tpr, right), wilson_interval(tnr, wrong))
    assert interval.estimate == pytest.approx(tpr + tnr - 1)
    assert -1 <= interval.low <= interval.estimate + 1e-9
    assert interval.estimate - 1e-9 <= interval.high <= 1


def test_similar_trials_of_a_case_count_less() -> None:
    """Ten copies of each case add no information: the interval is as wide as that of the cases."""
    cases = [(str(number), number % 4 != 0) for number in range(40)]
    once, copied = share_over_cases(cases), share_over_cases(cases * 10)
    assert once is not None
    assert copied is not None
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)
    all_right = share_over_cases([(str(number), True) for number in range(8)] * 10)
    assert all_right is not None
    assert all_right.low == pytest.approx(wilson_interval(1, 8).low)


def test_prediction_powered_inference_covers_the_truth() -> None:
    """Its 95% interval contains the truth 95% of the time, while that of the judge's raw share almost never does."""
    rounds, truth = 400, 0.7
    covered = raw_covered = narrower = 0
    for seed in range(rounds):
        labelled, rest = draw_trials(seed, truth=truth, sensitivity=0.95, specificity=0.5, trials=600, labelled=120)
        interval = corrected(labelled, rest)
        covered += interval.low <= truth <= interval.high
        raw = (sum(trial.passed for trial in labelled) + sum(passed for _, passed in rest)) / 600
        raw_covered += abs(raw - truth) <= 1.96 * math.sqrt(raw * (1 - raw) / 600)
        alone = share_over_cases([(trial.case_id, trial.right) for trial in labelled])
        assert alone is not None
        narrower += interval.high - interval.low < alone.high - alone.low
    assert COVERED[0] <= covered / rounds <= COVERED[1]
    assert raw_covered / rounds < 0.05
    assert narrower / rounds > 0.95


def test_a_useless_judge_costs_nothing() -> None:
    """With a judge that guesses, the corrected score is that of the labels alone, with an interval at most 3% wider."""
    draw = random.Random(1)
    labelled = [(str(n), float(draw.random() < 0.6), float(draw.random() < 0.5)) for n in range(100)]
    rest = [(str(n), float(draw.random() < 0.5)) for n in range(100, 500)]
    interval = prediction_powered(labelled, rest)
    assert interval is not None
    people = sum(label for _, label, _ in labelled) / 100
    assert interval.estimate == pytest.approx(people, abs=0.02)
    assert interval.high - interval.low <= 1.03 * 2 * 1.96 * math.sqrt(people * (1 - people) / 99)


def test_prediction_powered_inference_over_cases() -> None:
    """When all trials of a case are equal, the interval is over cases, not trials."""
    draw = random.Random(2)
    labels = {str(n): float(draw.random() < 0.6) for n in range(100)}
    once = prediction_powered([(case, label, label) for case, label in labels.items()], [])
    copied = prediction_powered([(case, label, label) for case, label in labels.items()] * 5, [])
    assert once is not None
    assert copied is not None
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert prediction_powered([("a", 1.0, 1.0)], [("b", 1.0)]) is None


def test_rogan_gladen() -> None:
    """A share of 0.62 by a judge of 0.9 and 0.8 implies 0.6; a useless judge implies nothing."""
    assert rogan_gladen(0.62, 0.8, 0.7) == pytest.approx(0.6)
    assert rogan_gladen(0.1, 0.8, 0.7) == 0
    assert rogan_gladen(0.5, 0.5, 0) is None


def make_calibration(**overrides: object) -> JudgeCalibration:
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
    return JudgeCalibration(**{**fields, **overrides})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "reason"),
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
def test_reasons_to_distrust_a_judge(overrides: dict[str, object], reason: str) -> None:
    """Missing a single threshold gives a reason; a judge that meets all of them has none."""
    assert distrust_reasons(make_calibration()) == ()
    assert distrust_reasons(make_calibration(**overrides)) == (reason,)


def test_a_good_and_a_poor_judge() -> None:
    """With 200 labels a judge of 0.97 and 0.95 is trusted and one of 0.9 and 0.5 is not."""
    good, rest = draw_trials(3, truth=0.7, sensitivity=0.97, specificity=0.95, trials=1_000, labelled=200)
    assert distrust_reasons(calibrate_judge(good, rest)) == ()
    poor, others = draw_trials(3, truth=0.7, sensitivity=0.9, specificity=0.5, trials=1_000, labelled=200)
    assert len(distrust_reasons(calibrate_judge(poor, others))) == 2


def test_no_labels() -> None:
    """Without labels nothing can be estimated, and the judge is distrusted."""
    calibration = calibrate_judge([], [("a", True), ("b", False)])
    assert (calibration.j, calibration.kappa, calibration.corrected, calibration.raw) == (None, None, None, 0.5)
    assert distrust_reasons(calibration) == ("0 labelled failures, 15 are needed",)


@pytest.mark.skipif(not PANDALM.exists(), reason=f"no {PANDALM}: PandaLM's labels are not on this machine")
def test_pandalm() -> None:
    """On PandaLM's pairs the kappas are as published, 0.85 to 0.89 between people and about 0.5 for the GPT-3.5 judge,
    which is distrusted; the interval of the score corrected with a fifth of the labels covers the true score.
    """
    rows = [json.loads(line) for line in PANDALM.read_text().splitlines()]
    between_people = [
        cohen_kappa((row["humans"][a], row["humans"][b]) for row in rows) for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert all(value is not None and 0.84 <= value <= 0.89 for value in between_people)
    judge_choices = [{"1": 1, "2": 2, "Tie": 0}.get(row["judge_gpt35"], -1) for row in rows]
    majority = [Counter(row["humans"]).most_common(1)[0][0] for row in rows]
    judged = kappa(
        [(str(row["id"]), one, other) for row, one, other in zip(rows, majority, judge_choices, strict=True)]
    )
    assert judged is not None
    assert 0.44 <= judged.estimate <= 0.54

    marks = [
        (str(row["id"]), one == 1, other == 1) for row, one, other in zip(rows, majority, judge_choices, strict=True)
    ]
    truth = sum(right for _, right, _ in marks) / len(marks)
    covered = 0
    for seed in range(400):
        draw = random.Random(seed)
        resampled = [(str(n), *draw.choice(marks)[1:]) for n in range(len(marks))]
        people = [
            LabelledTrial(case_id=case, passed=passed, people=(right,)) for case, right, passed in resampled[:120]
        ]
        rest = [(case, passed) for case, _, passed in resampled[120:]]
        interval = corrected(people, rest)
        covered += interval.low <= truth <= interval.high
    assert COVERED[0] <= covered / 400 <= COVERED[1]
    assert distrust_reasons(calibrate_judge(people, rest)) != ()
