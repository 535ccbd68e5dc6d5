"""Eval runs of an agent over its frozen set: each trial is a governed run and is committed as it ends."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from sqlalchemy import text

from handrail import Answered, BadInput, NotFound, Outcome, RunRequest, Runtime, Settings, govern, tool
from handrail.config.settings import PriceOverride
from handrail.evals import EvalSpec
from handrail.evals.errors import JudgeFailed, SpendingLimit
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import Case, load_eval_set
from handrail.evals.runner.eval_run import MAX_ATTEMPTS, EvalReport, run_evals
from handrail.evals.scorer import Scorer, ScorerContext
from handrail.evals.scorers.score import TrialScore
from handrail.evals.spec import EVALS_TENANT
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.kernel.money import nano_usd
from handrail.review.approvals.queries import list_approvals
from handrail.runs.store.queries import list_runs
from handrail.testing import VirtualClock, sandbox

CASES = """\
name: echo
description: The input, repeated.
cases:
"""
TODAY = dt.date(2026, 11, 22)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as active:
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of four cases; for the last the agent gives a wrong answer."""
    path = tmp_path / "cases.yaml"
    rows = [("c", "one", "one"), ("a", "two", "two"), ("d", "three", "three"), ("b", "four", "five")]
    yaml_rows = [
        f"  - {{id: {name}, input: {text}, expect: {{reply: {expected}}}, source: this test, date: 2026-11-22}}\n"
        for name, text, expected in rows
    ]
    path.write_text(CASES + "".join(yaml_rows))
    freeze(path, "first", TODAY)
    return path


def prompt_of(messages: list[ModelMessage]) -> str:
    return next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))


def echo(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart(prompt_of(messages))])


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


def echo_spec(cases: Path, model: Any = echo, make_deps: Any = None, **options: Any) -> EvalSpec[Any, str]:
    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), **options)
    return EvalSpec(agent=govern(agent, name="echo"), cases=cases, observe=observe, deps=make_deps)


def validated_spec(cases: Path, model: Any, validator: Callable[..., str]) -> EvalSpec[Any, str]:
    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"))
    agent.output_validator(validator)
    return EvalSpec(agent=govern(agent, name="echo"), cases=cases, observe=observe)


async def stored(runtime: Runtime) -> tuple[Any, list[Trial]]:
    [view] = await runtime.database.read(list_eval_runs(None, 9))
    view, trials = await runtime.database.read(load_eval_run(view.eval_run_id))
    return view, list(trials)


@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_an_eval_run_of_a_whole_set(runtime: Runtime, cases: Path, concurrency: int) -> None:
    """Every case gets one trial, a run of the tenant for evals, and the report agrees with the store."""
    report = await run_evals(runtime, echo_spec(cases), concurrency=concurrency)
    assert [trial.case_id for trial in report.trials] == ["c", "a", "d", "b"]
    assert [trial.score.passed for trial in report.trials] == [True, True, True, False]
    assert report.score is not None
    assert (report.score.mean, report.score.cases) == (0.75, 4)
    assert (report.agent, report.set_hash) == ("echo", load_eval_set(cases).content_hash)
    view, trials = await stored(runtime)
    assert view.ended_at is not None
    assert (view.eval_run_id, view.cases, view.set_hash) == (report.eval_run_id, 4, report.set_hash)
    assert trials == sorted(report.trials, key=lambda trial: trial.case_id)
    runs = await runtime.database.read(
        list_runs(runtime.clock.now(), tenant=EVALS_TENANT, agent="echo", limit=9, before=None)
    )
    assert {run.run_id for run in runs} == {trial.run_id for trial in trials}
    assert {run.fingerprint.agent if run.fingerprint else None for run in runs} == {trials[0].agent_hash}
    assert {trial.model for trial in trials} == {"function:echo"}


async def test_trials_are_committed_one_by_one(runtime: Runtime, cases: Path) -> None:
    """When `on_trial` is called, the trial and those before it are stored."""
    counts: list[tuple[str, int]] = []

    def note(case: Case, trial: Trial) -> None:
        [view] = runtime.database.read_now(list_eval_runs(None, 9))
        _, trials = runtime.database.read_now(load_eval_run(view.eval_run_id))
        assert trial in trials
        counts.append((case.id, len(trials)))

    await run_evals(runtime, echo_spec(cases), on_trial=note)
    assert counts == [("c", 1), ("a", 2), ("d", 3), ("b", 4)]


async def test_a_stopped_eval_run_keeps_its_trials(runtime: Runtime, cases: Path) -> None:
    """The trials before an eval run was stopped are kept, and the eval run has not ended."""
    waiting = asyncio.Event()

    async def hang(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if prompt_of(messages) == "three":
            waiting.set()
            await asyncio.Event().wait()
        return echo(messages, info)

    running = asyncio.create_task(run_evals(runtime, echo_spec(cases, hang)))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    view, trials = await stored(runtime)
    assert view.ended_at is None
    assert [trial.case_id for trial in trials] == ["a", "c"]


@pytest.mark.parametrize("kind", ["agent", "callable"])
async def test_a_trial_timeout(runtime: Runtime, cases: Path, kind: str) -> None:
    """A trial that exceeds its time limit is stopped and fails with a note; the others continue."""

    async def hang(text: str) -> dict[str, str]:
        if text == "three":
            await asyncio.Event().wait()
        return {"reply": text}

    async def hanging(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart((await hang(prompt_of(messages)))["reply"])])

    spec: EvalSpec[Any, Any] = EvalSpec(agent=hang, name="echo", cases=cases)
    if kind == "agent":
        spec = echo_spec(cases, hanging)
    report = await run_evals(runtime, replace(spec, seconds=2))
    assert [(trial.case_id, trial.score.passed) for trial in report.trials] == [
        ("c", True),
        ("a", True),
        ("d", False),
        ("b", False),
    ]
    stopped = report.trials[2]
    assert (stopped.outcome, stopped.path, stopped.error) == ("timed_out", "failed", None)
    assert stopped.score == TrialScore({"in_time": False}, notes={"in_time": "did not end in 2 s"})
    assert stopped.duration_ns > 0


async def test_a_bug_stops_an_eval_run(runtime: Runtime, cases: Path) -> None:
    """A programming error in the agent propagates from the eval run, and the trials before it are kept."""

    def buggy(ctx: RunContext[object], output: str) -> str:
        if ctx.prompt == "two":
            raise TypeError("wrong")
        return output

    with pytest.raises(TypeError, match="wrong"):
        await run_evals(runtime, validated_spec(cases, echo, buggy))
    view, trials = await stored(runtime)
    assert view.ended_at is None
    assert [trial.case_id for trial in trials] == ["c"]


async def test_a_failed_run_is_a_trial(runtime: Runtime, cases: Path) -> None:
    """A run that fails is a trial in which no field matches."""

    def lost(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("no_such_tool")])

    report = await run_evals(runtime, echo_spec(cases, lost))
    assert report.score is not None
    assert (report.score.mean, report.errors) == (0, ())
    assert {(trial.outcome, trial.path, trial.error) for trial in report.trials} == {("failed", "failed", None)}
    assert {tuple(trial.score.fields.items()) for trial in report.trials} == {(("reply", False),)}


async def await_with_clock(
    runtime: Runtime, clock: VirtualClock, running: Coroutine[Any, Any, EvalReport]
) -> EvalReport:
    """The result of `running`, while the clock advances by a second for each read of the store."""
    task = asyncio.ensure_future(running)
    while not task.done():
        await runtime.database.read(lambda _conn: None)
        clock.advance(1)
    return await task


async def test_infrastructure_faults_are_retried(
    runtime: Runtime, clock: VirtualClock, cases: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A trial whose model is unavailable is repeated, with a log record each time, and then left out of the score."""
    caplog.set_level("INFO", "handrail.evals")
    prompts: list[str] = []

    def flaky(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        text = prompt_of(messages)
        prompts.append(text)
        if text == "two" or (text == "three" and prompts.count(text) < MAX_ATTEMPTS):
            raise ModelHTTPError(503, "echo")
        return echo(messages, info)

    report = await await_with_clock(runtime, clock, run_evals(runtime, echo_spec(cases, flaky), concurrency=4))
    assert (prompts.count("one"), prompts.count("two"), prompts.count("three")) == (1, MAX_ATTEMPTS, MAX_ATTEMPTS)
    [error] = report.errors
    assert (error.case_id, error.error, error.path) == ("a", "model_unavailable", "failed")
    records = [record for record in caplog.records if record.name.startswith("handrail.evals")]
    assert len(records) == MAX_ATTEMPTS + MAX_ATTEMPTS - 1
    assert {record.__dict__["tenant"] for record in records} == {EVALS_TENANT}
    assert error.run_id in {record.__dict__["run_id"] for record in records}
    assert report.score is not None
    assert (report.score.cases, round(report.score.mean, 3)) == (3, 0.667)


async def test_a_rate_limit_delays_trials(runtime: Runtime, clock: VirtualClock, cases: Path) -> None:
    """A trial that hit the provider's rate limit is repeated, and none is lost."""
    in_flight = 0
    limited = False
    both = asyncio.Event()

    async def busy(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal in_flight, limited
        in_flight += 1
        if in_flight == 2:
            both.set()
        await both.wait()
        if not limited:
            limited = True
            raise ModelHTTPError(429, "echo")
        return echo(messages, info)

    report = await await_with_clock(runtime, clock, run_evals(runtime, echo_spec(cases, busy), concurrency=2))
    assert limited
    assert (report.errors, len(report.trials)) == ((), 4)


async def test_several_trials(runtime: Runtime, cases: Path) -> None:
    """Each case gets the requested number of trials, and its score is their mean."""
    attempts = Counter[str]()

    def wavering(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        text = prompt_of(messages)
        attempts[text] += 1
        return echo(messages, info) if text != "two" or attempts[text] % 2 else ModelResponse([TextPart("no")])

    report = await run_evals(runtime, echo_spec(cases, wavering), trials=4, concurrency=3)
    assert len(report.trials) == 16
    assert [(trial.case_id, trial.trial) for trial in report.trials[:5]] == [
        ("c", 1),
        ("c", 2),
        ("c", 3),
        ("c", 4),
        ("a", 1),
    ]
    assert report.score is not None
    assert (report.score.cases, report.score.mean) == (4, (1 + 0.5 + 1 + 0) / 4)


async def test_resuming(runtime: Runtime, cases: Path) -> None:
    """A stopped eval run is resumed with the missing trials, and only with those."""
    stop = True
    prompts: list[str] = []

    def noting(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        prompts.append(prompt_of(messages))
        return echo(messages, info)

    def stopping(ctx: RunContext[object], output: str) -> str:
        if stop and ctx.prompt == "three":
            raise TypeError("stopped")
        return output

    spec = validated_spec(cases, noting, stopping)
    with pytest.raises(TypeError):
        await run_evals(runtime, spec, trials=2)
    view, kept = await stored(runtime)
    stop = False
    report = await run_evals(runtime, spec, trials=2, resume=view.eval_run_id)
    assert len(kept) == 2
    assert report.eval_run_id == view.eval_run_id
    assert len(report.trials) == 8
    assert Counter(prompts) == {"one": 2, "two": 2, "three": 3, "four": 2}
    assert (await stored(runtime))[0].ended_at is not None


async def test_resuming_another_eval_run(runtime: Runtime, cases: Path) -> None:
    """An eval run of another agent, of another state of the set, or an unknown one is not resumed."""
    report = await run_evals(runtime, echo_spec(cases))
    other = EvalSpec(agent=lambda text: {"reply": text}, name="other", cases=cases)
    with pytest.raises(BadInput, match="of agent echo, not of other"):
        await run_evals(runtime, other, resume=report.eval_run_id)
    change_expectation(cases)
    freeze(cases, "changed", TODAY)
    with pytest.raises(BadInput, match="the set has changed"):
        await run_evals(runtime, echo_spec(cases), resume=report.eval_run_id)
    with pytest.raises(NotFound):
        await run_evals(runtime, echo_spec(cases), resume="eval_none")


async def test_a_complete_eval_run_is_not_changed(runtime: Runtime, cases: Path) -> None:
    """Resuming a complete eval run returns its report; more trials are refused, since a baseline may use it."""
    report = await run_evals(runtime, echo_spec(cases))
    assert await run_evals(runtime, echo_spec(cases), resume=report.eval_run_id) == report
    with pytest.raises(BadInput, match="is complete; start a new one"):
        await run_evals(runtime, echo_spec(cases), trials=2, resume=report.eval_run_id)
    _, trials = await stored(runtime)
    assert len(trials) == 4


def observed_something(context: ScorerContext) -> bool:
    return bool(context.observed)


def always_true(_context: ScorerContext) -> bool:
    return True


def scored_with(scorer: Scorer, cases: Path) -> EvalSpec[Any, Any]:
    return EvalSpec(agent=lambda text: {"reply": text}, name="echo", cases=cases, scorers=[scorer])


async def test_resuming_with_other_scorers(runtime: Runtime, cases: Path) -> None:
    """An eval run is not resumed after a scorer changed, and the error names the scorers."""
    begun = await run_evals(runtime, scored_with(observed_something, cases))
    await runtime.database.write(lambda conn: conn.execute(text("UPDATE eval_runs SET ended_at = NULL")))
    with pytest.raises(BadInput, match=r"\(changed since it began: observed_something, always_true\); start a new one"):
        await run_evals(runtime, scored_with(always_true, cases), trials=2, resume=begun.eval_run_id)
    assert len((await stored(runtime))[1]) == 4
    report = await run_evals(runtime, scored_with(observed_something, cases), trials=2, resume=begun.eval_run_id)
    assert {tuple(trial.score.fields) for trial in report.trials} == {("observed_something",)}
    assert len(report.trials) == 8


async def test_resuming_with_unknown_scorers(runtime: Runtime, cases: Path) -> None:
    """An eval run without a record of its scorers can be resumed, and its scorers stay unknown."""
    begun = await run_evals(runtime, scored_with(observed_something, cases))
    erase_scorers = text("UPDATE eval_runs SET scorer_hashes = NULL, ended_at = NULL")
    await runtime.database.write(lambda conn: conn.execute(erase_scorers))
    report = await run_evals(runtime, scored_with(observed_something, cases), trials=2, resume=begun.eval_run_id)
    assert len(report.trials) == 8
    assert (await stored(runtime))[0].scored_by is None


async def test_a_spending_limit(tmp_path: Path, cases: Path) -> None:
    """An eval run stops before the trial that would exceed its spending limit, and can be resumed."""
    usage = RequestUsage(input_tokens=1_000, output_tokens=100)

    def paid(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(prompt_of(messages))], usage=usage, model_name="echo")

    price = PriceOverride(input=Decimal(10), output=Decimal(100))
    paid_runtime = Runtime(Settings(base=tmp_path, store="paid.db", prices={"echo": price}), clock=VirtualClock())
    spec = echo_spec(cases, paid, model_settings={"max_tokens": 100})
    with pytest.raises(SpendingLimit, match=r"\$0.05 less \$0.04 spent"):
        await run_evals(paid_runtime, spec, max_cost=nano_usd(Decimal("0.05")))
    view, kept = await stored(paid_runtime)
    assert sum(trial.cost for trial in kept) == nano_usd(Decimal("0.04"))
    report = await run_evals(paid_runtime, spec, resume=view.eval_run_id, max_cost=nano_usd(Decimal(1)))
    assert len(report.trials) == 4
    paid_runtime.close()


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_any_callable(runtime: Runtime, cases: Path, kind: str) -> None:
    """A function is evaluated like an agent; an exception is a failed trial."""

    def plain(text: str) -> Mapping[str, Any]:
        if text == "two":
            raise ValueError("no")
        return {"reply": text}

    async def asynchronous(text: str) -> Mapping[str, Any]:
        return plain(text)

    function = plain if kind == "plain" else asynchronous
    spec: EvalSpec[Any, Any] = EvalSpec(agent=function, name="function", cases=cases)
    report = await run_evals(runtime, spec, concurrency=2)
    assert report.score is not None
    assert report.score.mean == 0.5
    assert [trial.outcome for trial in report.trials] == ["answered", "failed", "answered", "answered"]
    assert (
        await runtime.database.read(list_runs(runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)) == []
    )


async def test_approvals_of_trials_are_withdrawn(runtime: Runtime, cases: Path) -> None:
    """An approval that a trial asks for is withdrawn at once."""

    def refund() -> str:
        raise AssertionError

    def propose(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("refund", {})])

    spec = echo_spec(cases, propose, tools=[tool(refund, effect="irreversible")])
    report = await run_evals(runtime, spec)
    assert {trial.outcome for trial in report.trials} == {"awaiting_approval"}
    approvals = await runtime.database.read(
        list_approvals(runtime.clock.now(), state=None, tenant=None, limit=9, before=None)
    )
    assert [approval.state for approval in approvals] == ["withdrawn"] * 4


async def test_each_trial_has_its_own_deps(runtime: Runtime, cases: Path) -> None:
    """Each trial gets its own deps from the eval spec's factory and not from the agent's."""
    desks: list[list[str]] = []

    def make_desk(_request: RunRequest) -> list[str]:
        desks.append([])
        return desks[-1]

    def note(ctx: RunContext[list[str]]) -> str:
        ctx.deps.append("used")
        return "Echo."

    await run_evals(runtime, echo_spec(cases, deps_type=list, instructions=note, make_deps=make_desk), concurrency=4)
    assert desks == [["used"]] * 4


async def test_concurrency(runtime: Runtime, cases: Path) -> None:
    """As many trials run concurrently as requested, and no more."""
    in_flight, peak, all_started = 0, 0, asyncio.Event()

    async def together(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        if in_flight == 2:
            all_started.set()
        await all_started.wait()
        in_flight -= 1
        return echo(messages, info)

    await run_evals(runtime, echo_spec(cases, together), concurrency=2)
    assert peak == 2


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_concurrency_below_one(runtime: Runtime, cases: Path, concurrency: int) -> None:
    """Fewer than one trial at a time is refused, and nothing is recorded."""
    with pytest.raises(BadInput, match="concurrency"):
        await run_evals(runtime, echo_spec(cases), concurrency=concurrency)
    assert await runtime.database.read(list_eval_runs(None, 9)) == []


def change_expectation(cases: Path) -> None:
    cases.write_text(cases.read_text().replace("reply: five", "reply: four"))


async def test_an_unfrozen_set(runtime: Runtime, cases: Path) -> None:
    """A set that differs from its lock, or has none, is refused before any trial."""
    change_expectation(cases)
    with pytest.raises(BadInput, match="changed: b"):
        await run_evals(runtime, echo_spec(cases))
    cases.with_suffix(".lock").unlink()
    with pytest.raises(BadInput, match="eval freeze echo"):
        await run_evals(runtime, echo_spec(cases))
    assert await runtime.database.read(list_eval_runs(None, 9)) == []


async def test_an_unavailable_judge(runtime: Runtime, cases: Path) -> None:
    """A trial whose judge is unavailable counts as an error, and the eval run continues."""

    def judge(context: ScorerContext) -> bool:
        if context.case.id == "a":
            raise JudgeFailed("the judge is down")
        return True

    report = await run_evals(runtime, replace(echo_spec(cases), scorers=(judge,)))
    assert [(trial.case_id, trial.error) for trial in report.errors] == [("a", "judge_unavailable")]
    assert report.score is not None
    assert (report.score.mean, report.score.cases) == (1, 3)
