"""How often the gate is wrong: the rule itself, on simulated agents and on real noise, beside the naive rule.

Each repetition draws a baseline's and a candidate's trials from the cases' chances to pass, chooses the looks from the
flips measured on that baseline as the command does, and asks the rule of the package. All of it is seeded. Figures
without a size in their name are of real noise, the others of simulated agents.
"""

import csv
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from bench.figure import Figure
from handrail.evals.gate.decision_rule import MARGIN, compared, flip_rate, plain_rule, sequential_rule
from handrail.evals.gate.trial_plan import BASELINE_TRIALS, Plan, choose
from handrail.evals.labels.calibration import prediction_powered

DATA = Path(__file__).parents[2] / "shared" / "data"
REPETITIONS = 400
SIZES = (50, 100, 200, 300)
FLIP = 0.10
MEAN = 0.8
DROPS = (0.0, 0.05, 0.10)
PPI_ROUNDS = 1_000

Chances = Sequence[float]


@dataclass(frozen=True)
class Said:
    """How often a candidate was blocked, and the trials of each case that it took, over all repetitions."""

    blocked: float
    trials: float
    naive: float


def figures() -> list[Figure]:
    found: list[Figure] = []
    for cases in SIZES:
        found += _of(f"_n{cases}", [population(cases, seed) for seed in range(REPETITIONS)], _HOW.format(cases=cases))
    outcomes = DATA / "tau_airline" / "outcomes.csv"
    if outcomes.exists():
        found += _of("", [airline(outcomes)] * REPETITIONS, _TAU)
    else:
        print(f"skipped tau-bench airline: there is no {outcomes}")
    found.append(_coverage("", list(_simulated_marks())))
    judgements = DATA / "pandalm" / "judgements.jsonl"
    if judgements.exists():
        found.append(_coverage("_pandalm", _pandalm(judgements)))
    else:
        print(f"skipped PandaLM: there is no {judgements}")
    return found


_HOW = (
    f"{REPETITIONS} simulated agents of mean score {MEAN:.0%} and {FLIP:.0%} flips on {{cases}} cases, drops put into "
    "few cases; the peer is one run against one, blocked above 3 points"
)
_TAU = (
    f"{REPETITIONS} replays of GPT-4o on tau-bench airline, each of 50 tasks passing with its mean of 4 trials; the "
    "peer is one run against one, blocked above 3 points"
)


def population(cases: int, seed: int) -> Chances:
    """Each case's chance to pass: a beta of mean MEAN in which two trials of a case differ with chance FLIP."""
    draw = random.Random(f"cases {cases} {seed}")
    share = FLIP / 2 / (MEAN * (1 - MEAN))
    size = share / (1 - share)
    return [draw.betavariate(MEAN * size, (1 - MEAN) * size) for _ in range(cases)]


def airline(file: Path) -> Chances:
    """Each task's mean reward."""
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    with file.open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            rewards[row["task_id"]].append(float(row["reward"]))
    return [sum(each) / len(each) for each in rewards.values()]


def fallen(chances: Chances, drop: float, seed: int) -> Chances:
    """The same agent with cases broken, one after another, until its score has dropped so far."""
    found, left = list(chances), drop * len(chances)
    for place in random.Random(f"fallen {seed}").sample(range(len(found)), len(found)):
        taken = min(found[place], left)
        found[place] -= taken
        left -= taken
    return found


@cache
def plan_for(cases: int, flip: float) -> Plan:
    """The plan for a measured flip rate, rounded to half a percent to spare the simulation."""
    return choose(cases, flip)


def _of(name: str, agents: Sequence[Chances], how: str) -> list[Figure]:
    said = {drop: _repeated(agents, drop) for drop in DROPS}
    same = said[0.0]
    return [
        Figure(f"false_block_same_agent{name}", 100 * same.blocked, "%", "lower", how, {"naive": 100 * same.naive}),
        *(
            Figure(
                f"caught_drop_{round(100 * drop)}{name}",
                100 * said[drop].blocked,
                "%",
                "higher",
                how,
                {"naive": 100 * said[drop].naive},
            )
            for drop in DROPS[1:]
        ),
        Figure(f"candidate_trials_mean{name}", same.trials, "trials of each case", "lower", f"same agent; {how}"),
    ]


def _repeated(agents: Sequence[Chances], drop: float) -> Said:
    blocked, trials, naive = 0, 0, 0
    for seed, chances in enumerate(agents):
        draw = random.Random(f"trials {drop} {seed}")
        worse = fallen(chances, drop, seed)
        said, taken = _gated(chances, worse, draw)
        blocked += said
        trials += taken
        one, other = ([int(draw.random() < chance) for chance in side] for side in (chances, worse))
        naive += Fraction(sum(one) - sum(other), len(one)) > MARGIN
    n = len(agents)
    return Said(blocked / n, trials / n, naive / n)


def _gated(chances: Chances, worse: Chances, draw: random.Random) -> tuple[bool, int]:
    """Whether the candidate is blocked, and after how many trials of each case."""
    before = _trials(chances, BASELINE_TRIALS, draw)
    flip = flip_rate(before.values())
    assert flip is not None
    plan = plan_for(len(chances), round(float(flip) * 200) / 200)
    if plan.baseline_trials > BASELINE_TRIALS:
        more = _trials(chances, plan.baseline_trials - BASELINE_TRIALS, draw)
        before = {case: values + more[case] for case, values in before.items()}
    now: dict[str, list[Fraction]] = {case: [] for case in before}
    for look in plan.looks:
        more = _trials(worse, look - len(now["0"]), draw)
        now = {case: values + more[case] for case, values in now.items()}
        found = compared(before, now)
        if verdict := sequential_rule(found):
            return not verdict.passed, look
    return not plain_rule(found).passed, look


def _trials(chances: Chances, count: int, draw: random.Random) -> dict[str, list[Fraction]]:
    no, yes = Fraction(0), Fraction(1)
    return {
        str(case): [yes if draw.random() < chance else no for _ in range(count)] for case, chance in enumerate(chances)
    }


def _simulated_marks() -> Iterator[tuple[float, float]]:
    """(people, judge) for 20,000 trials: 70% right, a judge of sensitivity 0.95 and specificity 0.5."""
    draw = random.Random("marks")
    for _ in range(20_000):
        right = draw.random() < 0.7
        yield float(right), float(draw.random() < (0.95 if right else 0.5))


def _pandalm(file: Path) -> list[tuple[float, float]]:
    """Whether the first response won, by most people and by the GPT-3.5 judge."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(float(Counter(row["humans"]).most_common(1)[0][0] == 1), float(row["judge_gpt35"] == "1")) for row in rows]


def _coverage(name: str, marks: Sequence[tuple[float, float]]) -> Figure:
    """How often the 95% interval around 600 trials, a fifth of them labelled, holds the true share."""
    truth = sum(right for right, _ in marks) / len(marks)
    covered = raw = 0
    for seed in range(PPI_ROUNDS):
        drawn = random.Random(f"coverage {seed}").choices(marks, k=600)
        labelled = [(str(n), right, said) for n, (right, said) in enumerate(drawn[:120])]
        found = prediction_powered(labelled, [(str(n), said) for n, (_, said) in enumerate(drawn[120:], start=120)])
        assert found is not None
        covered += found.low <= truth <= found.high
        share = sum(said for _, said in drawn) / 600
        raw += abs(share - truth) <= 1.96 * math.sqrt(share * (1 - share) / 600)
    return Figure(
        f"ppi_coverage{name}",
        100 * covered / PPI_ROUNDS,
        "%",
        "higher",
        f"95% interval of the corrected score, {PPI_ROUNDS} draws of 600 trials with 120 labels; the peer is the raw "
        "share that the judge passes",
        {"raw judge": 100 * raw / PPI_ROUNDS},
    )
