"""How far a judge can be trusted, measured against people's labels, and its scores corrected accordingly.

Trials of the same case resemble each other, so every standard error here is computed over cases, not over trials.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Z95 = 1.959963984540054
"""The standard normal quantile of a two-sided 95% interval."""
MIN_FAILURES = 15
MIN_J = 0.5
MIN_KAPPA = 0.6
MAX_BELOW_HUMAN_KAPPA = 0.15

_MIN_CASES = 5
_RESAMPLES = 2_000
_SEED = 20_260_101


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval and the name of the method behind the interval."""

    estimate: float
    low: float
    high: float
    method: str

    def __str__(self) -> str:
        return f"{self.estimate:.2f} ({self.low:.2f} to {self.high:.2f}, {self.method})"

    @property
    def error(self) -> float:
        """The standard error that a normal interval of this width would have."""
        return (self.high - self.low) / (2 * Z95)


@dataclass(frozen=True, kw_only=True)
class LabelledTrial:
    """A trial that people labelled: whether the judge passed it, and whether each person called it right.

    `people` has at least one entry, in the order of labelling; the judge is measured against the first.
    """

    case_id: str
    passed: bool
    people: tuple[bool, ...]

    @property
    def right(self) -> bool:
        """The first person's label."""
        return self.people[0]


@dataclass(frozen=True, kw_only=True)
class JudgeCalibration:
    """How a judge compares with people's labels. A value is None when there are not enough labels for it.

    `sensitivity` is the share of right trials that the judge passes (true positive rate), `specificity` the share of
    wrong trials that it fails (true negative rate), `j` their sum minus 1 (Youden's J). `kappa` is the agreement of
    judge and people, `human_kappa` that of two people, measured on the `doubled` trials. `raw` is the share of trials
    that the judge passes, and `corrected` an estimate of the share that people would pass (prediction-powered
    inference). `rogan_gladen` is the share implied by sensitivity and specificity; it is a diagnostic only, since it is
    unstable for a weak judge.
    """

    labels: int
    failures: int
    doubled: int
    sensitivity: Interval | None
    specificity: Interval | None
    j: Interval | None
    kappa: Interval | None
    human_kappa: Interval | None
    raw: float
    corrected: Interval | None
    rogan_gladen: float | None


def calibrate_judge(labelled: Sequence[LabelledTrial], unlabelled: Sequence[tuple[str, bool]]) -> JudgeCalibration:
    """Measures a judge against people's labels.

    Args:
        labelled: The trials with labels, a random sample of all.
        unlabelled: (case id, whether the judge passed it) for every other trial.
    """
    right = [(trial.case_id, trial.passed) for trial in labelled if trial.right]
    wrong = [(trial.case_id, not trial.passed) for trial in labelled if not trial.right]
    sensitivity, specificity = share_over_cases(right), share_over_cases(wrong)
    j = None if sensitivity is None or specificity is None else youden_j(sensitivity, specificity)
    doubled = [(trial.case_id, trial.people[0], trial.people[1]) for trial in labelled if len(trial.people) > 1]
    passes = [trial.passed for trial in labelled] + [passed for _, passed in unlabelled]
    raw = sum(passes) / len(passes) if passes else math.nan
    return JudgeCalibration(
        labels=len(labelled),
        failures=len(wrong),
        doubled=len(doubled),
        sensitivity=sensitivity,
        specificity=specificity,
        j=j,
        kappa=kappa([(trial.case_id, trial.passed, trial.right) for trial in labelled]),
        human_kappa=kappa(doubled),
        raw=raw,
        corrected=prediction_powered(
            [(trial.case_id, float(trial.right), float(trial.passed)) for trial in labelled],
            [(case_id, float(passed)) for case_id, passed in unlabelled],
        ),
        rogan_gladen=None if j is None or specificity is None else rogan_gladen(raw, specificity.estimate, j.estimate),
    )


def distrust_reasons(calibration: JudgeCalibration) -> tuple[str, ...]:
    """The reasons not to trust the judge, each as a phrase; empty when it can be trusted."""
    kappa_, human_kappa = calibration.kappa, calibration.human_kappa
    reasons = []
    if calibration.failures < MIN_FAILURES:
        reasons.append(f"{calibration.failures} labelled failures, {MIN_FAILURES} are needed")
    if calibration.j is not None and calibration.j.low < MIN_J:
        reasons.append(f"the lower end of J is {calibration.j.low:.2f}, below {MIN_J:g}")
    if kappa_ is not None and kappa_.estimate < MIN_KAPPA:
        reasons.append(f"kappa is {kappa_.estimate:.2f}, below {MIN_KAPPA:g}")
    if kappa_ and human_kappa and human_kappa.estimate - kappa_.estimate > MAX_BELOW_HUMAN_KAPPA:
        people = f"{human_kappa.estimate:.2f} between people"
        reasons.append(f"kappa is {kappa_.estimate:.2f}, more than {MAX_BELOW_HUMAN_KAPPA:g} below the {people}")
    return tuple(reasons)


def wilson_interval(share: float, n: float) -> Interval:
    """Wilson's score interval (1927) of a share of `n` trials; `n` may be an effective, fractional number."""
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), "Wilson")


def share_over_cases(marks: Sequence[tuple[str, bool]]) -> Interval | None:
    """The share of marks that are true, with Wilson's interval over cases; None without marks.

    Args:
        marks: (case id, mark) for each trial.
    """
    if not marks:
        return None
    n = len(marks)
    mean = sum(mark for _, mark in marks) / n
    if mean in (0, 1):
        # With equal marks the similarity of a case's trials cannot be measured; assume the worst, one trial per case.
        return wilson_interval(mean, len({case_id for case_id, _ in marks}))
    # The design effect (Kish 1965): the variance with trials clustered in cases, divided by that of independent
    # trials. The number of trials divided by it is the effective sample size.
    variance = _clustered_variance((case_id, (mark - mean) / n) for case_id, mark in marks)
    design_effect = max(1.0, variance / (mean * (1 - mean) / n))
    return wilson_interval(mean, n / design_effect)


def youden_j(sensitivity: Interval, specificity: Interval) -> Interval:
    """J = TPR + TNR - 1, with an interval combined from the two by square-and-add (Newcombe 1998, method 10)."""
    j = sensitivity.estimate + specificity.estimate - 1
    low = math.hypot(sensitivity.estimate - sensitivity.low, specificity.estimate - specificity.low)
    high = math.hypot(sensitivity.high - sensitivity.estimate, specificity.high - specificity.estimate)
    return Interval(j, max(-1.0, j - low), min(1.0, j + high), "Newcombe")


def cohen_kappa(pairs: Iterable[tuple[Hashable, Hashable]]) -> float | None:
    """The agreement of two raters beyond chance (Cohen 1960): 1 is perfect, 0 is chance.

    None without items, and when both raters give the same single rating throughout.

    Args:
        pairs: The two ratings of each item.
    """
    return _kappa(Counter(pairs))


def kappa(rated: Sequence[tuple[str, Hashable, Hashable]]) -> Interval | None:
    """Cohen's kappa with a percentile bootstrap interval (Efron 1979); None where kappa is undefined.

    The bootstrap resamples whole cases, 2,000 times with a fixed seed, so the result is reproducible.

    Args:
        rated: (case id, first rating, second rating) for each trial.
    """
    by_case: defaultdict[str, Counter[tuple[Hashable, Hashable]]] = defaultdict(Counter)
    for case_id, first, second in rated:
        by_case[case_id][first, second] += 1
    estimate = cohen_kappa((first, second) for _, first, second in rated)
    if estimate is None:
        return None
    low, high = _bootstrap([list(counts.items()) for counts in by_case.values()], _kappa_of_cases)
    return Interval(estimate, low, high, "bootstrap")


def prediction_powered(
    labelled: Sequence[tuple[str, float, float]], unlabelled: Sequence[tuple[str, float]]
) -> Interval | None:
    """Estimates the mean label over all trials from a few labels and the judge's score of every trial.

    This is PPI++ (Angelopoulos, Duchi and Zrnic 2023). The judge's scores enter with the weight that minimises the
    variance, so a poor judge costs almost nothing compared with using the labels alone. None when the labels cover
    fewer than five cases.

    Args:
        labelled: (case id, label, judge's score) for each labelled trial, a random sample of all.
        unlabelled: (case id, judge's score) for every other trial.
    """
    n, rest = len(labelled), len(unlabelled)
    cases = len({case_id for case_id, _, _ in labelled})
    if cases < _MIN_CASES:
        return None
    mean_label = sum(y for _, y, _ in labelled) / n
    mean_score = sum(f for _, _, f in labelled) / n
    mean_rest = sum(f for _, f in unlabelled) / rest if rest else mean_score
    weight = _optimal_weight(labelled, unlabelled) if rest else 0.0
    # The mean of the labels, corrected by how far the judge's mean on the sample is from its mean on the rest.
    estimate = mean_label + weight * (mean_rest - mean_score)
    # Each trial's influence on the estimate; the variance is that of their sum, clustered by case.
    influence = [(case_id, (y - mean_label - weight * (f - mean_score)) / n) for case_id, y, f in labelled]
    influence += [(case_id, weight * (f - mean_rest) / rest) for case_id, f in unlabelled] if rest else []
    half = _t_factor_95(cases - 2) * math.sqrt(_clustered_variance(influence))
    return Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half), "PPI++")


def rogan_gladen(raw: float, specificity: float, j: float) -> float | None:
    """The true share implied by a judge's raw share (Rogan and Gladen 1978), clipped to 0 to 1.

    None for a judge that is no better than chance (J of 0 or less).
    """
    return min(1.0, max(0.0, (raw + specificity - 1) / j)) if j > 0 else None


def _t_factor_95(degrees: int) -> float:
    """Half the width of a 95% interval, in standard errors, when mean and weight were both estimated.

    Student's quantile by the first two terms of its expansion (Abramowitz and Stegun 1964, 26.7.5), times the square
    root of C / (C - 2) for C cases, since two parameters were estimated from them.
    """
    z, n = Z95, degrees
    quantile = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    return quantile * math.sqrt((n + 2) / n)


def _optimal_weight(labelled: Sequence[tuple[str, float, float]], unlabelled: Sequence[tuple[str, float]]) -> float:
    """The weight of the judge's scores that minimises the variance, clipped to 0 to 1 (PPI++, power tuning)."""
    n, rest = len(labelled), len(unlabelled)
    mean_y = sum(y for _, y, _ in labelled) / n
    mean_f = sum(f for _, _, f in labelled) / n
    covariance = sum((y - mean_y) * (f - mean_f) for _, y, f in labelled) / (n - 1)
    scores = [f for _, _, f in labelled] + [f for _, f in unlabelled]
    mean = sum(scores) / len(scores)
    variance = sum((f - mean) ** 2 for f in scores) / (len(scores) - 1)
    return min(1.0, max(0.0, covariance / (variance * (1 + n / rest)))) if variance else 0.0


def _clustered_variance(influence: Iterable[tuple[str, float]]) -> float:
    """The variance of a sum of (case id, influence), robust to correlation within a case.

    The influences of a case are added before squaring; C / (C - 1) corrects for a small number C of cases.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for case_id, value in influence:
        sums[case_id] += value
    cases = len(sums)
    return math.fsum(value * value for value in sums.values()) * (cases / (cases - 1) if cases > 1 else 1)


_PairCounts = Sequence[tuple[tuple[Hashable, Hashable], int]]


def _kappa_of_cases(cases: Sequence[_PairCounts]) -> float | None:
    counts: Counter[tuple[Hashable, Hashable]] = Counter()
    for pair_counts in cases:
        for pair, count in pair_counts:
            counts[pair] += count
    return _kappa(counts)


def _kappa(counts: Counter[tuple[Hashable, Hashable]]) -> float | None:
    total = counts.total()
    if not total:
        return None
    first_counts: Counter[Hashable] = Counter()
    second_counts: Counter[Hashable] = Counter()
    for (first, second), count in counts.items():
        first_counts[first] += count
        second_counts[second] += count
    # Fractions, so that a chance agreement of exactly 1, where kappa is undefined, is recognised as such.
    agreed = Fraction(sum(count for (first, second), count in counts.items() if first == second), total)
    chance = Fraction(sum(first_counts[rating] * second_counts[rating] for rating in first_counts), total * total)
    return None if chance == 1 else float((agreed - chance) / (1 - chance))


def _bootstrap(
    cases: Sequence[_PairCounts], statistic: Callable[[Sequence[_PairCounts]], float | None]
) -> tuple[float, float]:
    rng = random.Random(_SEED)  # noqa: S311 - for resampling, not for security
    samples = (rng.choices(cases, k=len(cases)) for _ in range(_RESAMPLES))
    values = sorted(value for sample in samples if (value := statistic(sample)) is not None)
    return values[round(0.025 * (len(values) - 1))], values[round(0.975 * (len(values) - 1))]
