"""Baselines and the gate over real eval runs: what is compared with what, how long, and what cannot be."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import text

from handrail import Answered, BadInput, GovernedAgent, NotFound, Outcome, Runtime, StoreError, govern
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import Case, freeze
from handrail.evals.gate.decision_rule import absolute, relative
from handrail.evals.gate.gate import NoBaseline, TooManyErrors, gate, promote, set_baseline
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.scorers.base import Scorer, Seen
from handrail.evals.scorers.builtin import exact
from handrail.evals.scorers.score import Verdict
from handrail.evals.store.baselines import list_baselines
from handrail.evals.store.eval_runs import Trial, agent_hash_of, list_eval_runs, load_eval_run
from handrail.kernel.money import ZERO
from handrail.testing import VirtualClock, sandbox

TODAY = dt.date(2026, 11, 22)
WORDS = ["one", "two", "three", "four"]


class Hurried(VirtualClock):
    """Whoever sleeps wakes at once, with the time moved on."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
def clock() -> VirtualClock:
    return Hurried()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of four words that should be said again."""
    path = tmp_path / "cases.yaml"
    rows = [f"  - {{id: {w}, input: {w}, expect: {{said: {w}}}, source: here, date: 2026-11-22}}\n" for w in WORDS]
    path.write_text("name: echo\ndescription: What comes back.\ncases:\n" + "".join(rows))
    freeze(path, "first", TODAY)
    return path


def echo(
    cases: Path,
    *wrong: str,
    prompt: str = "Echo.",
    name: str = "echo",
    down: tuple[str, ...] = (),
    flips: bool = False,
    scorers: tuple[Scorer, ...] = (),
) -> GovernedAgent[Any, str]:
    """An agent that says again what it hears, but for these words: every second time where it `flips`.

    For words that are `down` its model cannot be asked.
    """
    heard_before = Counter[str]()

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        heard = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        if heard in down:
            raise ModelAPIError("echo", "gone")
        heard_before[heard] += 1
        is_wrong = heard in wrong and not (flips and heard_before[heard] % 2)
        return ModelResponse([TextPart("what?" if is_wrong else heard)])

    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), instructions=prompt)
    trials = EvalSpec[Any, str](cases=cases, observe=observe, scorers=scorers)
    return govern(agent, name=name, trials=trials)


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


def rewrite(cases: Path) -> None:
    cases.write_text(cases.read_text().replace("said: four", "said: fourth"))


def change(cases: Path) -> None:
    """Another state of the set, frozen."""
    rewrite(cases)
    freeze(cases, "another answer", TODAY)


async def eval_runs(runtime: Runtime) -> int:
    return len(await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9)))


async def test_a_worse_agent_is_blocked(runtime: Runtime, cases: Path) -> None:
    """An agent that gets a case wrong which the baseline got right is blocked, the case named and the verdict kept."""
    baseline = await set_baseline(runtime, echo(cases, "one"), by="ann")
    gated = await gate(runtime, echo(cases, "one", "three", prompt="Say it."))
    assert not gated.verdict.passed
    assert (gated.verdict.decided_by, gated.verdict.trials) == ("sequential rule", 2)
    assert (gated.verdict.newly_failing, gated.verdict.newly_passing) == (("three",), ())
    assert (gated.baseline, gated.report.set_hash) == (baseline, baseline.set_hash)
    assert gated.agent_hash is not None
    assert baseline.agent_hash not in (None, gated.agent_hash)
    [kept] = await runtime.database.read(lambda conn: list_gates(conn, "echo", 9))
    assert kept.verdict == gated.verdict
    assert (kept.baseline_id, kept.eval_run_id) == (baseline.baseline_id, gated.report.eval_run_id)


async def test_a_baseline_is_a_complete_eval_run(runtime: Runtime, cases: Path) -> None:
    """A baseline points at an eval run that has ended, and carries its agent's fingerprint, its set, and who set it."""
    baseline = await set_baseline(runtime, echo(cases), by="ann", at_once=4)
    view, trials = await runtime.database.read(lambda conn: load_eval_run(conn, baseline.eval_run_id))
    assert view.ended_at is not None
    assert (view.agent, view.set_hash, len(trials)) == ("echo", baseline.set_hash, 32)
    assert {trial.agent_hash for trial in trials} == {baseline.agent_hash}
    assert (baseline.by, baseline.at, baseline.trials) == ("ann", runtime.clock.now(), 8)


async def test_as_good_or_better_passes(runtime: Runtime, cases: Path) -> None:
    """The same agent and a better one pass."""
    await set_baseline(runtime, echo(cases, "two"), by="ann")
    same = await gate(runtime, echo(cases, "two"), at_once=4)
    assert same.verdict.drop == 0
    assert (same.verdict.trials, len(same.report.trials)) == (1, 4)
    better = await gate(runtime, echo(cases))
    assert better.verdict.passed
    assert better.verdict.newly_passing == ("two",)


async def test_a_model_that_is_down_is_no_verdict(runtime: Runtime, cases: Path) -> None:
    """Where more than 5% of the trials could not ask their model, the error names them and nothing is said."""
    with pytest.raises(TooManyErrors, match=r"8 of 32 trials failed .*8 model_unavailable; cases one"):
        await set_baseline(runtime, echo(cases, down=("one",)), by="ann")
    await set_baseline(runtime, echo(cases), by="ann")
    with pytest.raises(TooManyErrors, match="1 of 4 trials"):
        await gate(runtime, echo(cases, down=("two",)))
    assert await runtime.database.read(lambda conn: list_gates(conn, "echo", 9)) == []


async def test_flips_ask_for_more_trials(runtime: Runtime, cases: Path) -> None:
    """A baseline whose cases flip gets more than eight trials, and the same agent is looked at late."""
    flipping = echo(cases, *WORDS, flips=True)
    baseline = await set_baseline(runtime, flipping, by="ann", at_once=8)
    assert baseline.trials == 32
    gated = await gate(runtime, echo(cases, *WORDS, flips=True), at_once=8)
    assert gated.plan is not None
    assert gated.plan.baseline_trials == 32
    assert gated.verdict.passed
    assert gated.verdict.trials in gated.plan.looks


async def test_trials_as_given(runtime: Runtime, cases: Path) -> None:
    """With a given number of trials a baseline has that many; with one, nothing is known of flips."""
    baseline = await set_baseline(runtime, echo(cases, *WORDS, flips=True), by="ann", trials=1)
    assert baseline.trials == 1
    gated = await gate(runtime, echo(cases))
    assert (gated.plan, gated.verdict.passed) == (None, True)
    with pytest.raises(BadInput, match="at least once"):
        await set_baseline(runtime, echo(cases), by="ann", trials=0)


async def test_at_most_so_many_trials(runtime: Runtime, cases: Path) -> None:
    """With a most trials the rule has to decide by then: the plain one does, where the other would look again."""
    await set_baseline(runtime, echo(cases), by="ann", trials=8)
    assert (await gate(runtime, echo(cases, "one"))).verdict.trials == 2
    one = await gate(runtime, echo(cases, "one"), trials=1)
    assert (one.verdict.passed, one.verdict.decided_by, one.verdict.trials) == (False, "plain rule", 1)
    assert one.plan is not None
    assert one.plan.looks == (1,)
    with pytest.raises(BadInput, match="trials: 0; a case is tried at least once"):
        await gate(runtime, echo(cases), trials=0)


async def test_the_margin_is_the_callers(runtime: Runtime, cases: Path) -> None:
    """A drop of 25 points passes where 30 may be lost, and blocks where 20% of the score may be."""
    await set_baseline(runtime, echo(cases), by="ann")
    worse = echo(cases, "one")
    assert (await gate(runtime, worse, margin=absolute(Fraction(30, 100)))).verdict.passed
    assert not (await gate(runtime, worse, margin=relative(Fraction(20, 100)))).verdict.passed


def polite(seen: Seen) -> bool:
    return bool(seen.observed)


def polite_enough(_seen: Seen) -> bool:
    return True


async def test_other_scorers_are_not_compared(runtime: Runtime, cases: Path) -> None:
    """A baseline that was scored by other means is refused, with the names of what changed, before a trial has run."""
    await set_baseline(runtime, echo(cases, scorers=(exact(), polite)), by="ann")
    assert (await gate(runtime, echo(cases, scorers=(exact(), polite)))).verdict.passed
    runs = await eval_runs(runtime)
    with pytest.raises(NoBaseline, match=r"other means \(changed since: polite, polite_enough\)"):
        await gate(runtime, echo(cases, scorers=(exact(), polite_enough)))
    assert await eval_runs(runtime) == runs


async def test_no_baseline_at_all(runtime: Runtime, cases: Path) -> None:
    """Without a baseline the gate says which command makes one, before a trial has run; another agent's is none."""
    await set_baseline(runtime, echo(cases, name="other"), by="ann")
    with pytest.raises(NoBaseline, match="echo has no baseline; run `handrail eval baseline echo`"):
        await gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1


async def test_a_baseline_for_another_state_of_the_set(runtime: Runtime, cases: Path) -> None:
    """After the set has changed the baseline is of the past; the gate says since when, and passes on a new one."""
    await set_baseline(runtime, echo(cases), by="ann")
    change(cases)
    with pytest.raises(NoBaseline, match=r"the set has changed since its baseline of 2026-01-01 .* then the gate"):
        await gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1
    await set_baseline(runtime, echo(cases), by="ann")
    assert (await gate(runtime, echo(cases))).verdict.passed


async def test_an_unfrozen_set_has_no_gate(runtime: Runtime, cases: Path) -> None:
    """A set that differs from its lock is refused before anything is compared."""
    await set_baseline(runtime, echo(cases), by="ann")
    rewrite(cases)
    with pytest.raises(BadInput, match="changed: four"):
        await gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1


async def test_the_newest_baseline_counts(runtime: Runtime, cases: Path, clock: VirtualClock) -> None:
    """A later baseline takes the place of the one before it, which stays in the history."""
    await set_baseline(runtime, echo(cases), by="ann")
    clock.advance(60)
    second = await set_baseline(runtime, echo(cases, "one"), by="ben")
    gated = await gate(runtime, echo(cases, "one"))
    assert gated.verdict.passed
    assert gated.baseline == second
    kept = await runtime.database.read(lambda conn: list_baselines(conn, "echo", 9))
    assert [each.by for each in kept] == ["ben", "ann"]


async def test_an_eval_run_that_is_there_can_be_promoted(runtime: Runtime, cases: Path) -> None:
    """An eval run of the set as it is becomes the baseline without being run again."""
    report = await run_evals(runtime, echo(cases, "one"))
    baseline = await promote(runtime, echo(cases), report.eval_run_id, by="ann")
    assert (baseline.eval_run_id, baseline.agent_hash) == (report.eval_run_id, report.trials[0].agent_hash)
    assert await eval_runs(runtime) == 1
    assert (await gate(runtime, echo(cases, "one"))).baseline == baseline


async def test_what_cannot_be_promoted(runtime: Runtime, cases: Path) -> None:
    """An eval run that is unknown, another agent's, or of another state of the set is no baseline."""
    with pytest.raises(NotFound, match="eval list"):
        await promote(runtime, echo(cases), "eval_9", by="ann")
    report = await run_evals(runtime, echo(cases))
    with pytest.raises(BadInput, match="is of agent echo, not of other"):
        await promote(runtime, echo(cases, name="other"), report.eval_run_id, by="ann")
    change(cases)
    with pytest.raises(BadInput, match=r"the set has changed since it ran .*`handrail eval baseline echo`"):
        await promote(runtime, echo(cases), report.eval_run_id, by="ann")
    assert await runtime.database.read(lambda conn: list_baselines(conn, "echo", 9)) == []


async def test_what_was_scored_otherwise_is_not_promoted(runtime: Runtime, cases: Path) -> None:
    """An eval run whose scorers have changed since is refused by their names; with the old ones it is a baseline."""
    report = await run_evals(runtime, echo(cases, scorers=(exact(), polite)))
    with pytest.raises(BadInput, match=r"changed since it ran: polite, polite_enough\); `handrail eval baseline echo`"):
        await promote(runtime, echo(cases, scorers=(exact(), polite_enough)), report.eval_run_id, by="ann")
    assert await runtime.database.read(lambda conn: list_baselines(conn, "echo", 9)) == []
    baseline = await promote(runtime, echo(cases, scorers=(exact(), polite)), report.eval_run_id, by="ann")
    view, _ = await runtime.database.read(lambda conn: load_eval_run(conn, report.eval_run_id))
    assert list(baseline.scored_by) == ["observe", "exact", "polite"]
    assert view.scored_by == baseline.scored_by


async def test_an_eval_run_of_unknown_scorers_is_not_promoted(runtime: Runtime, cases: Path) -> None:
    """An eval run from before its scorers were kept is refused: nothing shows that it can be compared."""
    report = await run_evals(runtime, echo(cases))
    await runtime.database.write(lambda conn: conn.execute(text("UPDATE eval_runs SET scored_by = NULL")))
    with pytest.raises(BadInput, match=r"nothing shows that it can be compared; `handrail eval baseline echo`"):
        await promote(runtime, echo(cases), report.eval_run_id, by="ann")
    assert await runtime.database.read(lambda conn: list_baselines(conn, "echo", 9)) == []


def stop_at_three(case: Case, _trial: Trial) -> None:
    if case.id == "three":
        raise StoreError("the store is gone")


async def test_a_run_that_was_stopped_is_no_baseline(runtime: Runtime, cases: Path) -> None:
    """A fault of the store passes through and sets no baseline, and the stopped eval run cannot be promoted."""
    with pytest.raises(StoreError, match="gone"):
        await set_baseline(runtime, echo(cases), by="ann", on_trial=stop_at_three)
    assert await runtime.database.read(lambda conn: list_baselines(conn, "echo", 9)) == []
    [view] = await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9))
    with pytest.raises(BadInput, match=r"has \d+ trials and is not complete"):
        await promote(runtime, echo(cases), view.eval_run_id, by="ann")


async def test_a_gate_that_was_stopped_has_no_verdict(runtime: Runtime, cases: Path) -> None:
    """A fault of the store in a candidate's trials passes through, and no verdict is kept."""
    await set_baseline(runtime, echo(cases), by="ann")
    with pytest.raises(StoreError, match="gone"):
        await gate(runtime, echo(cases), on_trial=stop_at_three)
    assert await runtime.database.read(lambda conn: list_gates(conn, "echo", 9)) == []


@pytest.mark.parametrize(
    ("hashes", "kept"),
    [([], None), ([None], None), ([None, "b", None], "b"), (["a", "b", "b"], "b"), (["b", "a"], "a")],
)
def test_the_fingerprint_of_an_eval_run(hashes: list[str | None], kept: str | None) -> None:
    """It is that of most trials which reached a model, the first by name where several are as frequent."""
    trials = [
        Trial(
            case_id=str(number),
            trial=1,
            run_id="run_1",
            outcome="answered",
            path="happy",
            verdict=Verdict({"said": True}),
            observed={},
            duration_ns=1,
            cost=ZERO,
            agent_hash=each,
        )
        for number, each in enumerate(hashes)
    ]
    assert agent_hash_of(trials) == kept
