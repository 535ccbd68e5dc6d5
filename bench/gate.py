"""How often the gate is wrong, on simulated agents and on real data, compared with a naive rule.

Each repetition draws a baseline's and a candidate's trials from the cases' chances to pass, chooses the looks by the
flip rate of that baseline as the command does, and applies the gate's decision rule. All of it is seeded. Figures
without a size in their name are of real data, the others of simulated agents.
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
from handrail.evals.gate.decision_rule import MARGIN, flip_rate, interim_stats, plain_rule, sequential_rule
from handrail.evals.gate.trial_plan import BASELINE_TRIALS, TrialPlan, choose_plan
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
class GateRates:
    """Over all repetitions: how often the gate and the naive rule blocked, and the mean trials of each case."""

    blocked: float
    trials: float
    naive: float


def figures() -> list[Figure]:
    """Runs the benchmark."""
    measured: list[Figure] = []
    for cases in SIZES:
        agents = [population(cases, seed) for seed in range(REPETITIONS)]
        measured += _gate_figures(f"_n{cases}", agents, _SIMULATED_METHOD.format(cases=cases))
    outcomes = DATA / "tau_airline" / "outcomes.csv"
    if outcomes.exists():
        measured += _gate_figures("", [airline(outcomes)] * REPETITIONS, _AIRLINE_METHOD)
    else:
        print(f"skipped tau-bench airline: there is no {outcomes}")
    measured.append(_coverage("", list(_simulated_marks())))
    judgements = DATA / "pandalm" / "judgements.jsonl"
    if judgements.exists():
        measured.append(_coverage("_pandalm", _pandalm(judgements)))
    else:
        print(f"skipped PandaLM: there is no {judgements}")
    return measured


_SIMULATED_METHOD = (
    f"{REPETITIONS} simulated agents of mean score {MEAN:.0%} and {FLIP:.0%} flips on {{cases}} cases, drops put into "
    "few cases; the peer is one run against one, blocked above 3 points"
)
_AIRLINE_METHOD = (
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
    return [sum(values) / len(values) for values in rewards.values()]


def degraded(chances: Chances, drop: float, seed: int) -> Chances:
    """The same agent with one case after another failing, until its score has dropped by `drop`."""
    remaining_chances, left = list(chances), drop * len(chances)
    for index in random.Random(f"fallen {seed}").sample(range(len(chances)), len(chances)):
        lost = min(remaining_chances[index], left)
        remaining_chances[index] -= lost
        left -= lost
    return remaining_chances


@cache
def plan_for(cases: int, flip: float) -> TrialPlan:
    """The plan for a measured flip rate, rounded to half a percent to spare the simulation."""
    return choose_plan(cases, flip)


def _gate_figures(name: str, agents: Sequence[Chances], method: str) -> list[Figure]:
    rates = {drop: _gate_rates(agents, drop) for drop in DROPS}
    same = rates[0.0]
    return [
        Figure(f"false_block_same_agent{name}", 100 * same.blocked, "%", "lower", method, {"naive": 100 * same.naive}),
        *(
            Figure(
                f"caught_drop_{round(100 * drop)}{name}",
                100 * rates[drop].blocked,
                "%",
                "higher",
                method,
                {"naive": 100 * rates[drop].naive},
            )
            for drop in DROPS[1:]
        ),
        Figure(f"candidate_trials_mean{name}", same.trials, "trials of each case", "lower", f"same agent; {method}"),
    ]


def _gate_rates(agents: Sequence[Chances], drop: float) -> GateRates:
    blocked, trials, naive = 0, 0, 0
    for seed, chances in enumerate(agents):
        draw = random.Random(f"trials {drop} {seed}")
        worse = degraded(chances, drop, seed)
        is_blocked, case_trials = _run_gate(chances, worse, draw)
        blocked += is_blocked
        trials += case_trials
        before, after = ([int(draw.random() < chance) for chance in side] for side in (chances, worse))
        naive += Fraction(sum(before) - sum(after), len(before)) > MARGIN
    n = len(agents)
    return GateRates(blocked / n, trials / n, naive / n)


def _run_gate(chances: Chances, worse: Chances, draw: random.Random) -> tuple[bool, int]:
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
        stats = interim_stats(before, now)
        if verdict := sequential_rule(stats):
            return not verdict.passed, look
    return not plain_rule(stats).passed, look


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
    """How often the 95% interval of 600 trials, a fifth of them labelled, contains the true share."""
    truth = sum(right for right, _ in marks) / len(marks)
    covered = raw = 0
    for seed in range(PPI_ROUNDS):
        drawn = random.Random(f"coverage {seed}").choices(marks, k=600)
        labelled = [(str(n), right, judged) for n, (right, judged) in enumerate(drawn[:120])]
        interval = prediction_powered(
            labelled, [(str(n), judged) for n, (_, judged) in enumerate(drawn[120:], start=120)]
        )
        assert interval is not None
        covered += interval.low <= truth <= interval.high
        share = sum(judged for _, judged in drawn) / 600
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
