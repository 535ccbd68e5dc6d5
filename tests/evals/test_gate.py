"""Baselines and the gate with real eval runs."""

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

from handrail import Answered, BadInput, NotFound, Outcome, Runtime, StoreError, govern
from handrail.evals import EvalSpec
from handrail.evals.errors import NoBaseline, TooManyErrors
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import Case
from handrail.evals.gate.baseline import baseline_from_eval_run, create_baseline
from handrail.evals.gate.decision_rule import absolute_margin, relative_margin
from handrail.evals.gate.gate import run_gate
from handrail.evals.gate.verdict_store import list_gates
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.scorer import Scorer, ScorerContext
from handrail.evals.scorers.fields import exact
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store.baselines import list_baselines
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run, most_common_agent_hash
from handrail.kernel.money import ZERO
from handrail.testing import VirtualClock, sandbox

TODAY = dt.date(2026, 11, 22)
WORDS = ["one", "two", "three", "four"]


class InstantClock(VirtualClock):
    """A clock on which a sleep ends immediately and advances the time."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
def clock() -> VirtualClock:
    return InstantClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as active:
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of four words that the agent should repeat."""
    path = tmp_path / "cases.yaml"
    rows = [
        f"  - {{id: {word}, input: {word}, expect: {{reply: {word}}}, source: here, date: 2026-11-22}}\n"
        for word in WORDS
    ]
    path.write_text("name: echo\ndescription: The input, repeated.\ncases:\n" + "".join(rows))
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
) -> EvalSpec[Any, str]:
    """An agent that repeats its input, except for the `wrong` words; with `flips`, every second time.

    For words in `down` its model is unavailable.
    """
    times_asked = Counter[str]()

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        word = next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))
        if word in down:
            raise ModelAPIError("echo", "gone")
        times_asked[word] += 1
        is_wrong = word in wrong and not (flips and times_asked[word] % 2)
        return ModelResponse([TextPart("what?" if is_wrong else word)])

    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), instructions=prompt)
    return EvalSpec(agent=govern(agent, name=name), cases=cases, observe=observe, scorers=scorers)


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


def rewrite(cases: Path) -> None:
    cases.write_text(cases.read_text().replace("reply: four", "reply: fourth"))


def change(cases: Path) -> None:
    """Changes the set and freezes it again."""
    rewrite(cases)
    freeze(cases, "another answer", TODAY)


async def eval_runs(runtime: Runtime) -> int:
    return len(await runtime.database.read(list_eval_runs(None, 9)))


async def test_a_worse_agent_is_blocked(runtime: Runtime, cases: Path) -> None:
    """An agent that fails a case which the baseline passed is blocked; the case is named and the verdict stored."""
    baseline = await create_baseline(runtime, echo(cases, "one"), by="ann")
    result = await run_gate(runtime, echo(cases, "one", "three", prompt="Say it."))
    assert not result.verdict.passed
    assert (result.verdict.decided_by, result.verdict.trials) == ("sequential rule", 2)
    assert (result.verdict.newly_failing, result.verdict.newly_passing) == (("three",), ())
    assert (result.baseline, result.report.set_hash) == (baseline, baseline.set_hash)
    assert result.agent_hash is not None
    assert baseline.agent_hash not in (None, result.agent_hash)
    [gate] = await runtime.database.read(list_gates("echo", 9))
    assert gate.verdict == result.verdict
    assert (gate.baseline_id, gate.eval_run_id) == (baseline.baseline_id, result.report.eval_run_id)


async def test_a_baseline_is_a_complete_eval_run(runtime: Runtime, cases: Path) -> None:
    """A baseline refers to a complete eval run and has its agent's fingerprint, its set and its author."""
    baseline = await create_baseline(runtime, echo(cases), by="ann", concurrency=4)
    view, trials = await runtime.database.read(load_eval_run(baseline.eval_run_id))
    assert view.ended_at is not None
    assert (view.agent, view.set_hash, len(trials)) == ("echo", baseline.set_hash, 32)
    assert {trial.agent_hash for trial in trials} == {baseline.agent_hash}
    assert (baseline.by, baseline.at, baseline.trials) == ("ann", runtime.clock.now(), 8)


async def test_as_good_or_better_passes(runtime: Runtime, cases: Path) -> None:
    """The same agent and a better one pass."""
    await create_baseline(runtime, echo(cases, "two"), by="ann")
    same = await run_gate(runtime, echo(cases, "two"), concurrency=4)
    assert same.verdict.drop == 0
    assert (same.verdict.trials, len(same.report.trials)) == (1, 4)
    better = await run_gate(runtime, echo(cases))
    assert better.verdict.passed
    assert better.verdict.newly_passing == ("two",)


async def test_no_verdict_while_the_model_is_down(runtime: Runtime, cases: Path) -> None:
    """If more than 5% of the trials failed because of the infrastructure, there is an error and no verdict."""
    with pytest.raises(TooManyErrors, match=r"failed 8 of 32 trials \(8 model_unavailable; cases one\)"):
        await create_baseline(runtime, echo(cases, down=("one",)), by="ann")
    await create_baseline(runtime, echo(cases), by="ann")
    with pytest.raises(TooManyErrors, match="1 of 4 trials"):
        await run_gate(runtime, echo(cases, down=("two",)))
    assert await runtime.database.read(list_gates("echo", 9)) == []


async def test_flips_need_more_trials(runtime: Runtime, cases: Path) -> None:
    """A baseline with flipping cases gets more than eight trials, and the gate follows its plan of looks."""
    flipping = echo(cases, *WORDS, flips=True)
    baseline = await create_baseline(runtime, flipping, by="ann", concurrency=8)
    assert baseline.trials == 32
    result = await run_gate(runtime, echo(cases, *WORDS, flips=True), concurrency=8)
    assert result.plan is not None
    assert result.plan.baseline_trials == 32
    assert result.verdict.passed
    assert result.verdict.trials in result.plan.looks


async def test_a_given_number_of_trials(runtime: Runtime, cases: Path) -> None:
    """A baseline has the given number of trials; with one, the flip rate is unknown."""
    baseline = await create_baseline(runtime, echo(cases, *WORDS, flips=True), by="ann", trials=1)
    assert baseline.trials == 1
    result = await run_gate(runtime, echo(cases))
    assert (result.plan, result.verdict.passed) == (None, True)
    with pytest.raises(BadInput, match="at least once"):
        await create_baseline(runtime, echo(cases), by="ann", trials=0)


async def test_a_maximum_of_trials(runtime: Runtime, cases: Path) -> None:
    """At the maximum of trials the plain rule decides where the sequential one would need more."""
    await create_baseline(runtime, echo(cases), by="ann", trials=8)
    assert (await run_gate(runtime, echo(cases, "one"))).verdict.trials == 2
    one = await run_gate(runtime, echo(cases, "one"), trials=1)
    assert (one.verdict.passed, one.verdict.decided_by, one.verdict.trials) == (False, "plain rule", 1)
    assert one.plan is not None
    assert one.plan.looks == (1,)
    with pytest.raises(BadInput, match="trials: 0; a case is tried at least once"):
        await run_gate(runtime, echo(cases), trials=0)


async def test_the_margin_is_a_parameter(runtime: Runtime, cases: Path) -> None:
    """A drop of 25 points passes with a margin of 30 points, and is blocked with one of 20% of the score."""
    await create_baseline(runtime, echo(cases), by="ann")
    worse = echo(cases, "one")
    assert (await run_gate(runtime, worse, margin=absolute_margin(Fraction(30, 100)))).verdict.passed
    assert not (await run_gate(runtime, worse, margin=relative_margin(Fraction(20, 100)))).verdict.passed


def polite(context: ScorerContext) -> bool:
    return bool(context.observed)


def polite_enough(_context: ScorerContext) -> bool:
    return True


async def test_other_scorers_cannot_be_compared(runtime: Runtime, cases: Path) -> None:
    """A baseline with other scorers is refused before any trial runs, and the error names what changed."""
    await create_baseline(runtime, echo(cases, scorers=(exact(), polite)), by="ann")
    assert (await run_gate(runtime, echo(cases, scorers=(exact(), polite)))).verdict.passed
    runs = await eval_runs(runtime)
    with pytest.raises(NoBaseline, match=r"other scorers \(changed since: polite, polite_enough\)"):
        await run_gate(runtime, echo(cases, scorers=(exact(), polite_enough)))
    assert await eval_runs(runtime) == runs


async def test_no_baseline(runtime: Runtime, cases: Path) -> None:
    """Without a baseline of this agent the error names the command that creates one, before any trial runs."""
    await create_baseline(runtime, echo(cases, name="other"), by="ann")
    with pytest.raises(NoBaseline, match="echo has no baseline; run `handrail eval baseline echo`"):
        await run_gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1


async def test_a_baseline_for_another_state_of_the_set(runtime: Runtime, cases: Path) -> None:
    """After the set has changed, the gate needs a new baseline, and the error has the old one's date."""
    await create_baseline(runtime, echo(cases), by="ann")
    change(cases)
    with pytest.raises(NoBaseline, match=r"the set has changed since its baseline of 2026-01-01 .* then the gate"):
        await run_gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1
    await create_baseline(runtime, echo(cases), by="ann")
    assert (await run_gate(runtime, echo(cases))).verdict.passed


async def test_the_gate_needs_a_frozen_set(runtime: Runtime, cases: Path) -> None:
    """A set that differs from its lock is refused before anything is compared."""
    await create_baseline(runtime, echo(cases), by="ann")
    rewrite(cases)
    with pytest.raises(BadInput, match="changed: four"):
        await run_gate(runtime, echo(cases))
    assert await eval_runs(runtime) == 1


async def test_the_newest_baseline_counts(runtime: Runtime, cases: Path, clock: VirtualClock) -> None:
    """A later baseline replaces the previous one, which stays in the history."""
    await create_baseline(runtime, echo(cases), by="ann")
    clock.advance(60)
    second = await create_baseline(runtime, echo(cases, "one"), by="ben")
    result = await run_gate(runtime, echo(cases, "one"))
    assert result.verdict.passed
    assert result.baseline == second
    baselines = await runtime.database.read(list_baselines("echo", 9))
    assert [stored.by for stored in baselines] == ["ben", "ann"]


async def test_a_stored_eval_run_becomes_the_baseline(runtime: Runtime, cases: Path) -> None:
    """A complete eval run of the current set becomes the baseline without running again."""
    report = await run_evals(runtime, echo(cases, "one"))
    baseline = await baseline_from_eval_run(runtime, echo(cases), report.eval_run_id, by="ann")
    assert (baseline.eval_run_id, baseline.agent_hash) == (report.eval_run_id, report.trials[0].agent_hash)
    assert await eval_runs(runtime) == 1
    assert (await run_gate(runtime, echo(cases, "one"))).baseline == baseline


async def test_eval_runs_that_cannot_become_the_baseline(runtime: Runtime, cases: Path) -> None:
    """An eval run that is unknown, another agent's, or of another state of the set is refused."""
    with pytest.raises(NotFound, match="eval list"):
        await baseline_from_eval_run(runtime, echo(cases), "eval_9", by="ann")
    report = await run_evals(runtime, echo(cases))
    with pytest.raises(BadInput, match="is of agent echo, not of other"):
        await baseline_from_eval_run(runtime, echo(cases, name="other"), report.eval_run_id, by="ann")
    change(cases)
    with pytest.raises(BadInput, match=r"the set has changed since it ran .*`handrail eval baseline echo`"):
        await baseline_from_eval_run(runtime, echo(cases), report.eval_run_id, by="ann")
    assert await runtime.database.read(list_baselines("echo", 9)) == []


async def test_an_eval_run_with_other_scorers_is_refused(runtime: Runtime, cases: Path) -> None:
    """An eval run whose scorers have changed is refused with their names; with the old ones it is accepted."""
    report = await run_evals(runtime, echo(cases, scorers=(exact(), polite)))
    with pytest.raises(BadInput, match=r"changed since it ran: polite, polite_enough\); `handrail eval baseline echo`"):
        await baseline_from_eval_run(
            runtime, echo(cases, scorers=(exact(), polite_enough)), report.eval_run_id, by="ann"
        )
    assert await runtime.database.read(list_baselines("echo", 9)) == []
    baseline = await baseline_from_eval_run(
        runtime, echo(cases, scorers=(exact(), polite)), report.eval_run_id, by="ann"
    )
    view, _ = await runtime.database.read(load_eval_run(report.eval_run_id))
    assert list(baseline.scored_by) == ["observe", "exact", "polite"]
    assert view.scored_by == baseline.scored_by


async def test_an_eval_run_with_unknown_scorers_is_refused(runtime: Runtime, cases: Path) -> None:
    """An eval run without a record of its scorers is refused, since it may not be comparable."""
    report = await run_evals(runtime, echo(cases))
    await runtime.database.write(lambda conn: conn.execute(text("UPDATE eval_runs SET scorer_hashes = NULL")))
    with pytest.raises(
        BadInput,
        match=r"has no record of its scorers, so it cannot be compared with another; `handrail eval baseline echo`",
    ):
        await baseline_from_eval_run(runtime, echo(cases), report.eval_run_id, by="ann")
    assert await runtime.database.read(list_baselines("echo", 9)) == []


def stop_at_three(case: Case, _trial: Trial) -> None:
    if case.id == "three":
        raise StoreError("the store is gone")


async def test_a_stopped_eval_run_is_refused(runtime: Runtime, cases: Path) -> None:
    """A store error propagates and creates no baseline, and the stopped eval run cannot become one."""
    with pytest.raises(StoreError, match="gone"):
        await create_baseline(runtime, echo(cases), by="ann", on_trial=stop_at_three)
    assert await runtime.database.read(list_baselines("echo", 9)) == []
    [view] = await runtime.database.read(list_eval_runs(None, 9))
    with pytest.raises(BadInput, match=r"is not complete, it has \d+ trials"):
        await baseline_from_eval_run(runtime, echo(cases), view.eval_run_id, by="ann")


async def test_a_stopped_gate_has_no_verdict(runtime: Runtime, cases: Path) -> None:
    """A store error in a candidate's trials propagates, and no verdict is stored."""
    await create_baseline(runtime, echo(cases), by="ann")
    with pytest.raises(StoreError, match="gone"):
        await run_gate(runtime, echo(cases), on_trial=stop_at_three)
    assert await runtime.database.read(list_gates("echo", 9)) == []


@pytest.mark.parametrize(
    ("hashes", "expected"),
    [([], None), ([None], None), ([None, "b", None], "b"), (["a", "b", "b"], "b"), (["b", "a"], "a")],
)
def test_the_fingerprint_of_an_eval_run(hashes: list[str | None], expected: str | None) -> None:
    """It is the most common fingerprint of the trials with one, and the first in order if there is a tie."""
    trials = [
        Trial(
            case_id=str(number),
            trial=1,
            run_id="run_1",
            outcome="answered",
            path="happy",
            score=TrialScore({"reply": True}),
            observed={},
            duration_ns=1,
            cost=ZERO,
            agent_hash=agent_hash,
        )
        for number, agent_hash in enumerate(hashes)
    ]
    assert most_common_agent_hash(trials) == expected
