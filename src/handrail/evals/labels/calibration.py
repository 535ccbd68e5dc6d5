"""How far a judge can be trusted, measured beside people's labels; and what a score is worth once that is known.

Trials of one case resemble each other, so every error here is reckoned over cases, not over trials.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Z95 = 1.959963984540054
"""Standard errors to either side of an estimate that make a 95% interval."""
MIN_FAILURES = 15
MIN_J = 0.5
MIN_KAPPA = 0.6
BELOW_HUMANS = 0.15

_FEWEST = 5
_RESAMPLES = 2_000
_SEED = 20_260_101


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval, and the method that the interval is by."""

    estimate: float
    low: float
    high: float
    method: str

    def __str__(self) -> str:
        return f"{self.estimate:.2f} ({self.low:.2f} to {self.high:.2f}, {self.method})"

    @property
    def error(self) -> float:
        """A standard error to go with the interval."""
        return (self.high - self.low) / (2 * Z95)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A trial that people looked at: whether the judge passed it, and what each person said.

    `people` has at least one entry, in the order in which they were asked; the first is what the judge is measured by.
    """

    case_id: str
    passed: bool
    people: tuple[bool, ...]

    @property
    def right(self) -> bool:
        return self.people[0]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the labels say of a judge. None stands where there are no labels to say it from.

    `sensitivity` is the share of right trials that the judge passes (TPR), `specificity` that of wrong ones which it
    fails (TNR), `j` their sum less 1. `kappa` is between judge and people, `human_kappa` between people. `raw` is the
    share that the judge passes, `corrected` that share as people would say it, by prediction-powered inference;
    `rogan_gladen` is the share that sensitivity and specificity imply, a diagnostic that goes wild for a weak judge.
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


def calibrate(labelled: Sequence[Labelled], unlabelled: Sequence[tuple[str, bool]]) -> Calibration:
    """Measures a judge by trials that people labelled; `unlabelled` are (case id, judge passed it) for the others."""
    right = [(each.case_id, each.passed) for each in labelled if each.right]
    wrong = [(each.case_id, not each.passed) for each in labelled if not each.right]
    sensitivity, specificity = share(right), share(wrong)
    j = None if sensitivity is None or specificity is None else youden(sensitivity, specificity)
    doubled = [(each.case_id, each.people[0], each.people[1]) for each in labelled if len(each.people) > 1]
    everyone = [each.passed for each in labelled] + [passed for _, passed in unlabelled]
    raw = sum(everyone) / len(everyone) if everyone else math.nan
    return Calibration(
        labels=len(labelled),
        failures=len(wrong),
        doubled=len(doubled),
        sensitivity=sensitivity,
        specificity=specificity,
        j=j,
        kappa=kappa([(each.case_id, each.passed, each.right) for each in labelled]),
        human_kappa=kappa(doubled),
        raw=raw,
        corrected=prediction_powered(
            [(each.case_id, float(each.right), float(each.passed)) for each in labelled],
            [(case_id, float(passed)) for case_id, passed in unlabelled],
        ),
        rogan_gladen=None if j is None or specificity is None else rogan_gladen(raw, specificity.estimate, j.estimate),
    )


def distrust(found: Calibration) -> tuple[str, ...]:
    """Why the judge is not to be trusted, each reason in words; empty where it is."""
    reasons = []
    if found.failures < MIN_FAILURES:
        reasons.append(f"{found.failures} labelled failures, {MIN_FAILURES} are needed")
    if found.j is not None and found.j.low < MIN_J:
        reasons.append(f"the lower end of J is {found.j.low:.2f}, below {MIN_J:g}")
    if found.kappa is not None and found.kappa.estimate < MIN_KAPPA:
        reasons.append(f"kappa is {found.kappa.estimate:.2f}, below {MIN_KAPPA:g}")
    if found.kappa and found.human_kappa and found.human_kappa.estimate - found.kappa.estimate > BELOW_HUMANS:
        people = f"{found.human_kappa.estimate:.2f} between people"
        reasons.append(f"kappa is {found.kappa.estimate:.2f}, more than {BELOW_HUMANS:g} below the {people}")
    return tuple(reasons)


def wilson(share: float, n: float) -> Interval:
    """A share of `n` trials with Wilson's score interval (Wilson 1927); `n` need not be whole."""
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), "Wilson")


def share(marks: Sequence[tuple[str, bool]]) -> Interval | None:
    """The share of marks that are true, from (case id, mark), with Wilson's interval over cases; None for no marks.

    The number of trials is divided by the design effect, which is how much wider the error is for trials of one case
    being alike (Kish 1965); where all marks are equal it cannot be seen, and a case counts once.
    """
    if not marks:
        return None
    n = len(marks)
    mean = sum(mark for _, mark in marks) / n
    if mean in (0, 1):
        return wilson(mean, len({case for case, _ in marks}))
    variance = _clustered((case, (mark - mean) / n) for case, mark in marks)
    return wilson(mean, n / max(1.0, variance / (mean * (1 - mean) / n)))


def youden(sensitivity: Interval, specificity: Interval) -> Interval:
    """J = TPR + TNR - 1 with its interval from those of the two (square-and-add, Newcombe 1998)."""
    j = sensitivity.estimate + specificity.estimate - 1
    low = math.hypot(sensitivity.estimate - sensitivity.low, specificity.estimate - specificity.low)
    high = math.hypot(sensitivity.high - sensitivity.estimate, specificity.high - specificity.estimate)
    return Interval(j, max(-1.0, j - low), min(1.0, j + high), "Newcombe")


def cohen_kappa(pairs: Iterable[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement beyond chance of two raters on the same items (Cohen 1960): 1 is perfect, 0 is chance.

    None for no items, and where both raters always say one and the same thing.
    """
    return _kappa(Counter(pairs))


def kappa(rated: Sequence[tuple[str, Hashable, Hashable]]) -> Interval | None:
    """Cohen's kappa from (case id, one rating, the other), with a percentile bootstrap interval over cases.

    2,000 resamples, seeded (Efron 1979).
    """
    by_case: defaultdict[str, Counter[tuple[Hashable, Hashable]]] = defaultdict(Counter)
    for case, one, other in rated:
        by_case[case][one, other] += 1
    found = cohen_kappa((one, other) for _, one, other in rated)
    if found is None:
        return None
    cases = [list(counts.items()) for counts in by_case.values()]
    low, high = _bootstrap(cases, _kappa_of_cases)
    return Interval(found, low, high, "bootstrap")


def prediction_powered(
    labelled: Sequence[tuple[str, float, float]], unlabelled: Sequence[tuple[str, float]]
) -> Interval | None:
    """The mean of people's labels over all trials, from a few labels and the judge's score of every trial.

    `labelled` are (case id, label, judge's score), drawn at random; `unlabelled` are (case id, judge's score). The
    judge's scores enter with the weight that makes the variance least, so a poor judge costs next to nothing (PPI++,
    Angelopoulos, Duchi and Zrnic 2023); the interval is Student's, its variance over cases. None for labels of
    fewer than five cases.
    """
    n, rest = len(labelled), len(unlabelled)
    cases = len({case for case, _, _ in labelled})
    if cases < _FEWEST:
        return None
    label = sum(y for _, y, _ in labelled) / n
    judged = sum(f for _, _, f in labelled) / n
    others = sum(f for _, f in unlabelled) / rest if rest else judged
    weight = _weight(labelled, unlabelled) if rest else 0.0
    estimate = label + weight * (others - judged)
    influence = [(case, (y - label - weight * (f - judged)) / n) for case, y, f in labelled]
    influence += [(case, weight * (f - others) / rest) for case, f in unlabelled] if rest else []
    half = _t95(cases - 2) * math.sqrt(_clustered(influence))
    return Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half), "PPI++")


def rogan_gladen(raw: float, specificity: float, j: float) -> float | None:
    """The true share behind a judge's `raw` one (Rogan and Gladen 1978), cut to 0 to 1; None for a judge of no use."""
    return min(1.0, max(0.0, (raw + specificity - 1) / j)) if j > 0 else None


def _t95(freedom: int) -> float:
    """Student's quantile for a 95% interval whose mean and weight were both estimated, wider for few cases.

    Two terms of Cornish and Fisher's expansion, and the variance's own correction for the two.
    """
    z, n = Z95, freedom
    quantile = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    return quantile * math.sqrt((n + 2) / n)


def _weight(labelled: Sequence[tuple[str, float, float]], unlabelled: Sequence[tuple[str, float]]) -> float:
    n, rest = len(labelled), len(unlabelled)
    mean_y = sum(y for _, y, _ in labelled) / n
    mean_f = sum(f for _, _, f in labelled) / n
    covariance = sum((y - mean_y) * (f - mean_f) for _, y, f in labelled) / (n - 1)
    scores = [f for _, _, f in labelled] + [f for _, f in unlabelled]
    mean = sum(scores) / len(scores)
    variance = sum((f - mean) ** 2 for f in scores) / (len(scores) - 1)
    return min(1.0, max(0.0, covariance / (variance * (1 + n / rest)))) if variance else 0.0


def _clustered(influence: Iterable[tuple[str, float]]) -> float:
    """The variance of a sum of influences, those of a case added up first, with the usual correction for few cases."""
    sums: defaultdict[str, float] = defaultdict(float)
    for case, value in influence:
        sums[case] += value
    cases = len(sums)
    return math.fsum(value * value for value in sums.values()) * (cases / (cases - 1) if cases > 1 else 1)


_Counts = Sequence[tuple[tuple[Hashable, Hashable], int]]


def _kappa_of_cases(cases: Sequence[_Counts]) -> float | None:
    counted: Counter[tuple[Hashable, Hashable]] = Counter()
    for each in cases:
        for pair, count in each:
            counted[pair] += count
    return _kappa(counted)


def _kappa(counted: Counter[tuple[Hashable, Hashable]]) -> float | None:
    total = counted.total()
    if not total:
        return None
    ones: Counter[Hashable] = Counter()
    others: Counter[Hashable] = Counter()
    for (one, other), count in counted.items():
        ones[one] += count
        others[other] += count
    agreed = Fraction(sum(count for (one, other), count in counted.items() if one == other), total)
    chance = Fraction(sum(ones[each] * others[each] for each in ones), total * total)
    return None if chance == 1 else float((agreed - chance) / (1 - chance))


def _bootstrap(cases: Sequence[_Counts], statistic: Callable[[Sequence[_Counts]], float | None]) -> tuple[float, float]:
    draw = random.Random(_SEED)  # noqa: S311 - a resampling, not a secret
    found = sorted(
        value for _ in range(_RESAMPLES) if (value := statistic(draw.choices(cases, k=len(cases)))) is not None
    )
    return found[round(0.025 * (len(found) - 1))], found[round(0.975 * (len(found) - 1))]
