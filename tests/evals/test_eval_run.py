"""An agent over its frozen set: every trial a governed run, committed as it ends."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from sqlalchemy import text

from handrail import Answered, BadInput, GovernedAgent, NotFound, Outcome, RunRequest, Runtime, Settings, govern, tool
from handrail.config.settings import Price
from handrail.evals import EvalSpec
from handrail.evals.eval_set.model import Case, freeze, load_set
from handrail.evals.runner.eval_run import TRIES, EvalReport, run_evals
from handrail.evals.runner.task import CallableTask, SpendingLimit
from handrail.evals.scorers.base import Scorer, Seen
from handrail.evals.scorers.llm_judge import NoVerdict
from handrail.evals.scorers.score import Verdict
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.evals.tenant import TENANT
from handrail.kernel.money import nano_usd
from handrail.review.approvals.store import list_approvals
from handrail.runs.store.runs import list_runs
from handrail.testing import VirtualClock, sandbox

CASES = """\
name: echo
description: What comes back.
cases:
"""
TODAY = dt.date(2026, 11, 22)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: VirtualClock) -> Iterator[Runtime]:
    with sandbox(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of four cases, of which the last expects another answer than the agent gives."""
    path = tmp_path / "cases.yaml"
    rows = [("c", "one", "one"), ("a", "two", "two"), ("d", "three", "three"), ("b", "four", "five")]
    written = [
        f"  - {{id: {name}, input: {asked}, expect: {{said: {said}}}, source: this test, date: 2026-11-22}}\n"
        for name, asked, said in rows
    ]
    path.write_text(CASES + "".join(written))
    freeze(path, "first", TODAY)
    return path


def asked(messages: list[ModelMessage]) -> str:
    return next(str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart))


def echo(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart(asked(messages))])


def observe(outcome: Outcome[str]) -> Mapping[str, Any]:
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


def governed(cases: Path | None, model: Any = echo, **options: Any) -> GovernedAgent[Any, str]:
    trials = (
        None if cases is None else EvalSpec[Any, str](cases=cases, observe=observe, deps=options.pop("fresh", None))
    )
    agent: Agent[Any, str] = Agent(FunctionModel(model, model_name="echo"), **options)
    return govern(agent, name="echo", trials=trials)


async def stored(runtime: Runtime) -> tuple[Any, list[Trial]]:
    [view] = await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9))
    view, trials = await runtime.database.read(lambda conn: load_eval_run(conn, view.eval_run_id))
    return view, list(trials)


@pytest.mark.parametrize("at_once", [1, 3, 100])
async def test_a_whole_set(runtime: Runtime, cases: Path, at_once: int) -> None:
    """Every case is tried once, in a run of the evals' own tenant, and the report is what is stored."""
    report = await run_evals(runtime, governed(cases), at_once=at_once)
    assert [trial.case_id for trial in report.trials] == ["c", "a", "d", "b"]
    assert [trial.verdict.passed for trial in report.trials] == [True, True, True, False]
    assert report.score is not None
    assert (report.score.mean, report.score.cases) == (0.75, 4)
    assert (report.agent, report.set_hash) == ("echo", load_set(cases).content_hash)
    view, trials = await stored(runtime)
    assert view.ended_at is not None
    assert (view.eval_run_id, view.cases, view.set_hash) == (report.eval_run_id, 4, report.set_hash)
    assert trials == sorted(report.trials, key=lambda trial: trial.case_id)
    runs = await runtime.database.read(
        lambda conn: list_runs(conn, runtime.clock.now(), tenant=TENANT, agent="echo", limit=9, before=None)
    )
    assert {run.run_id for run in runs} == {trial.run_id for trial in trials}
    assert {run.fingerprint.agent if run.fingerprint else None for run in runs} == {trials[0].agent_hash}
    assert {trial.model for trial in trials} == {"function:echo"}


async def test_committed_one_by_one(runtime: Runtime, cases: Path) -> None:
    """When a trial is told of, it and those before it are in the store."""
    seen: list[tuple[str, int]] = []

    def note(case: Case, trial: Trial) -> None:
        [view] = runtime.database.read_now(lambda conn: list_eval_runs(conn, None, 9))
        _, trials = runtime.database.read_now(lambda conn: load_eval_run(conn, view.eval_run_id))
        assert trial in trials
        seen.append((case.id, len(trials)))

    await run_evals(runtime, governed(cases), on_trial=note)
    assert seen == [("c", 1), ("a", 2), ("d", 3), ("b", 4)]


async def test_a_stopped_eval_keeps_its_trials(runtime: Runtime, cases: Path) -> None:
    """What was tried before an eval run was stopped is kept, and the eval run shows as not ended."""
    waiting = asyncio.Event()

    async def hang(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if asked(messages) == "three":
            waiting.set()
            await asyncio.Event().wait()
        return echo(messages, info)

    running = asyncio.create_task(run_evals(runtime, governed(cases, hang)))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    view, trials = await stored(runtime)
    assert view.ended_at is None
    assert [trial.case_id for trial in trials] == ["a", "c"]


@pytest.mark.parametrize("kind", ["agent", "callable"])
async def test_a_case_that_hangs(runtime: Runtime, cases: Path, kind: str) -> None:
    """A trial that does not end in its time is stopped and has failed; the others go on, and say how long it had."""

    async def hang(text: str) -> dict[str, str]:
        if text == "three":
            await asyncio.Event().wait()
        return {"said": text}

    async def hanging(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart((await hang(asked(messages)))["said"])])

    subject: Any = CallableTask(hang, name="echo", cases=cases)
    if kind == "agent":
        subject = governed(cases, hanging)
    subject.trials = replace(subject.trials, seconds=0.2)
    report = await run_evals(runtime, subject)
    assert [(trial.case_id, trial.verdict.passed) for trial in report.trials] == [
        ("c", True),
        ("a", True),
        ("d", False),
        ("b", False),
    ]
    stopped = report.trials[2]
    assert (stopped.outcome, stopped.path, stopped.error) == ("timed_out", "failed", None)
    assert stopped.verdict == Verdict({"in_time": False}, notes={"in_time": "did not end in 0.2 s"})
    assert stopped.duration_ns > 0


async def test_a_bug_stops_an_eval(runtime: Runtime, cases: Path) -> None:
    """A programming error in the agent ends the eval run with that error itself, and the trials before it are kept."""

    def buggy(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if asked(messages) == "two":
            raise TypeError("wrong")
        return echo(messages, info)

    with pytest.raises(TypeError, match="wrong"):
        await run_evals(runtime, governed(cases, buggy))
    view, trials = await stored(runtime)
    assert view.ended_at is None
    assert [trial.case_id for trial in trials] == ["c"]


async def test_a_failed_run_is_a_trial(runtime: Runtime, cases: Path) -> None:
    """A run that fails is a trial that matches nothing, with how it ended."""

    def lost(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise UnexpectedModelBehavior("lost")

    report = await run_evals(runtime, governed(cases, lost))
    assert report.score is not None
    assert (report.score.mean, report.errors) == (0, ())
    assert {(trial.outcome, trial.path, trial.error) for trial in report.trials} == {("failed", "failed", None)}
    assert {tuple(trial.verdict.fields.items()) for trial in report.trials} == {(("said", False),)}


async def with_time(runtime: Runtime, clock: VirtualClock, running: Coroutine[Any, Any, EvalReport]) -> EvalReport:
    """What `running` gives, while time passes: a second for each look at the store."""
    task = asyncio.ensure_future(running)
    while not task.done():
        await runtime.database.read(lambda _conn: None)
        clock.advance(1)
    return await task


async def test_the_infrastructure_is_not_the_agent(runtime: Runtime, clock: VirtualClock, cases: Path) -> None:
    """A trial whose model cannot be asked is tried again, then counted apart: the score is over the others."""
    asked_for: list[str] = []

    def flaky(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        text = asked(messages)
        asked_for.append(text)
        if text == "two" or (text == "three" and asked_for.count(text) < TRIES):
            raise ModelHTTPError(503, "echo")
        return echo(messages, info)

    report = await with_time(runtime, clock, run_evals(runtime, governed(cases, flaky), at_once=4))
    assert (asked_for.count("one"), asked_for.count("two"), asked_for.count("three")) == (1, TRIES, TRIES)
    [error] = report.errors
    assert (error.case_id, error.error, error.path) == ("a", "model_unavailable", "failed")
    assert report.score is not None
    assert (report.score.cases, round(report.score.mean, 3)) == (3, 0.667)


async def test_a_rate_limit_is_heeded(runtime: Runtime, clock: VirtualClock, cases: Path) -> None:
    """A trial that the provider turned away as too many at once is made again, and none is lost."""
    under_way = 0
    limited = False
    both = asyncio.Event()

    async def busy(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal under_way, limited
        under_way += 1
        if under_way == 2:
            both.set()
        await both.wait()
        if not limited:
            limited = True
            raise ModelHTTPError(429, "echo")
        return echo(messages, info)

    report = await with_time(runtime, clock, run_evals(runtime, governed(cases, busy), at_once=2))
    assert limited
    assert (report.errors, len(report.trials)) == ((), 4)


async def test_several_trials(runtime: Runtime, cases: Path) -> None:
    """Each case is tried as often as asked for; its score is the mean of its trials."""
    tries = Counter[str]()

    def wavering(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        text = asked(messages)
        tries[text] += 1
        return echo(messages, info) if text != "two" or tries[text] % 2 else ModelResponse([TextPart("no")])

    report = await run_evals(runtime, governed(cases, wavering), trials=4, at_once=3)
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


async def test_going_on(runtime: Runtime, cases: Path) -> None:
    """An eval run that was stopped goes on with the trials that are missing, and only with those."""
    stop = True
    seen: list[str] = []

    def stopping(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(asked(messages))
        if stop and asked(messages) == "three":
            raise TypeError("stopped")
        return echo(messages, info)

    agent = governed(cases, stopping)
    with pytest.raises(TypeError):
        await run_evals(runtime, agent, trials=2)
    view, kept = await stored(runtime)
    stop = False
    report = await run_evals(runtime, agent, trials=2, resume=view.eval_run_id)
    assert len(kept) == 2
    assert report.eval_run_id == view.eval_run_id
    assert len(report.trials) == 8
    assert Counter(seen) == {"one": 2, "two": 2, "three": 3, "four": 2}
    assert (await stored(runtime))[0].ended_at is not None


async def test_going_on_with_another(runtime: Runtime, cases: Path) -> None:
    """An eval run of another agent, of another state of the set, or none at all is not gone on with."""
    report = await run_evals(runtime, governed(cases))
    other = CallableTask(lambda text: {"said": text}, name="other", cases=cases)
    with pytest.raises(BadInput, match="of agent echo, not of other"):
        await run_evals(runtime, other, resume=report.eval_run_id)
    expect_another(cases)
    freeze(cases, "changed", TODAY)
    with pytest.raises(BadInput, match="the set has changed"):
        await run_evals(runtime, governed(cases), resume=report.eval_run_id)
    with pytest.raises(NotFound):
        await run_evals(runtime, governed(cases), resume="eval_none")


async def test_a_complete_eval_run_stays_as_it_is(runtime: Runtime, cases: Path) -> None:
    """Resuming it gives its report; more trials are refused, since a baseline may point at it."""
    report = await run_evals(runtime, governed(cases))
    assert await run_evals(runtime, governed(cases), resume=report.eval_run_id) == report
    with pytest.raises(BadInput, match="is complete; start a new one"):
        await run_evals(runtime, governed(cases), trials=2, resume=report.eval_run_id)
    _, trials = await stored(runtime)
    assert len(trials) == 4


def heard(seen: Seen) -> bool:
    return bool(seen.observed)


def understood(_seen: Seen) -> bool:
    return True


def scored_with(scorer: Scorer, cases: Path) -> CallableTask:
    return CallableTask(lambda text: {"said": text}, name="echo", cases=cases, scorers=[scorer])


async def test_going_on_with_other_scorers(runtime: Runtime, cases: Path) -> None:
    """An eval run is scored by one means: it is not gone on with once a scorer has changed, and the scorer is named."""
    begun = await run_evals(runtime, scored_with(heard, cases))
    await runtime.database.write(lambda conn: conn.execute(text("UPDATE eval_runs SET ended_ns = NULL")))
    with pytest.raises(BadInput, match=r"\(changed since it began: heard, understood\); start a new one"):
        await run_evals(runtime, scored_with(understood, cases), trials=2, resume=begun.eval_run_id)
    assert len((await stored(runtime))[1]) == 4
    report = await run_evals(runtime, scored_with(heard, cases), trials=2, resume=begun.eval_run_id)
    assert {tuple(trial.verdict.fields) for trial in report.trials} == {("heard",)}
    assert len(report.trials) == 8


async def test_going_on_with_unknown_scorers(runtime: Runtime, cases: Path) -> None:
    """An eval run from before its scorers were kept goes on, and what scored it stays unknown."""
    begun = await run_evals(runtime, scored_with(heard, cases))
    forgotten = text("UPDATE eval_runs SET scored_by = NULL, ended_ns = NULL")
    await runtime.database.write(lambda conn: conn.execute(forgotten))
    report = await run_evals(runtime, scored_with(heard, cases), trials=2, resume=begun.eval_run_id)
    assert len(report.trials) == 8
    assert (await stored(runtime))[0].scored_by is None


async def test_a_spending_limit(tmp_path: Path, cases: Path) -> None:
    """An eval run never spends more than its limit: it stops before the trial that would, and can be gone on with."""
    usage = RequestUsage(input_tokens=1_000, output_tokens=100)

    def paid(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(asked(messages))], usage=usage, model_name="echo")

    price = Price(input=Decimal(10), output=Decimal(100))
    opened = Runtime(Settings(base=tmp_path, store="paid.db", prices={"echo": price}), clock=VirtualClock())
    agent = governed(cases, paid, model_settings={"max_tokens": 100})
    with pytest.raises(SpendingLimit, match=r"\$0.05 less \$0.04 spent"):
        await run_evals(opened, agent, max_cost=nano_usd(Decimal("0.05")))
    view, kept = await stored(opened)
    assert sum(trial.cost for trial in kept) == nano_usd(Decimal("0.04"))
    report = await run_evals(opened, agent, resume=view.eval_run_id, max_cost=nano_usd(Decimal(1)))
    assert len(report.trials) == 4
    opened.close()


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_any_callable(runtime: Runtime, cases: Path, kind: str) -> None:
    """A function is tried like an agent; what it raises is a failed trial."""

    def plain(text: str) -> Mapping[str, Any]:
        if text == "two":
            raise ValueError("no")
        return {"said": text}

    async def asynchronous(text: str) -> Mapping[str, Any]:
        return plain(text)

    task = CallableTask(plain if kind == "plain" else asynchronous, name="function", cases=cases)
    report = await run_evals(runtime, task, at_once=2)
    assert report.score is not None
    assert report.score.mean == 0.5
    assert [trial.outcome for trial in report.trials] == ["answered", "failed", "answered", "answered"]
    assert (
        await runtime.database.read(
            lambda conn: list_runs(conn, runtime.clock.now(), tenant=None, agent=None, limit=9, before=None)
        )
        == []
    )


async def test_what_a_trial_asks_for_is_withdrawn(runtime: Runtime, cases: Path) -> None:
    """An irreversible action that a trial proposes waits for nobody."""

    def refund() -> str:
        raise AssertionError

    def asking(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("refund", {})])

    agent = governed(cases, asking, tools=[tool(refund, effect="irreversible")])
    report = await run_evals(runtime, agent)
    assert {trial.outcome for trial in report.trials} == {"awaiting_approval"}
    found = await runtime.database.read(
        lambda conn: list_approvals(conn, state=None, tenant=None, limit=9, before=None)
    )
    assert [each.state for each in found] == ["withdrawn"] * 4


async def test_a_fresh_world(runtime: Runtime, cases: Path) -> None:
    """Each trial has deps of its own, made by the trials' factory and not by the agent's."""
    made: list[list[str]] = []

    def fresh(_request: RunRequest) -> list[str]:
        made.append([])
        return made[-1]

    def note(ctx: RunContext[list[str]]) -> str:
        ctx.deps.append("seen")
        return "Echo."

    await run_evals(runtime, governed(cases, deps_type=list, instructions=note, fresh=fresh), at_once=4)
    assert made == [["seen"]] * 4


async def test_at_once(runtime: Runtime, cases: Path) -> None:
    """As many trials run side by side as were asked for, and no more."""
    under_way, most, everybody = 0, 0, asyncio.Event()

    async def together(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            everybody.set()
        await everybody.wait()
        under_way -= 1
        return echo(messages, info)

    await run_evals(runtime, governed(cases, together), at_once=2)
    assert most == 2


@pytest.mark.parametrize("at_once", [0, -1])
async def test_none_at_once(runtime: Runtime, cases: Path, at_once: int) -> None:
    """Fewer than one trial at a time is refused, and nothing is recorded."""
    with pytest.raises(BadInput, match="at_once"):
        await run_evals(runtime, governed(cases), at_once=at_once)
    assert await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9)) == []


def expect_another(cases: Path) -> None:
    cases.write_text(cases.read_text().replace("said: five", "said: four"))


async def test_an_unfrozen_set(runtime: Runtime, cases: Path) -> None:
    """A set that differs from its lock, or has none, is refused before anything runs."""
    expect_another(cases)
    with pytest.raises(BadInput, match="changed: b"):
        await run_evals(runtime, governed(cases))
    cases.with_suffix(".lock").unlink()
    with pytest.raises(BadInput, match="eval freeze echo"):
        await run_evals(runtime, governed(cases))
    assert await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9)) == []


async def test_an_agent_without_a_set(runtime: Runtime) -> None:
    """An agent without an eval set is refused with the way to give it one."""
    with pytest.raises(BadInput, match=r"EvalSpec\(cases="):
        await run_evals(runtime, governed(None))


async def test_a_judge_that_gives_no_verdict(runtime: Runtime, cases: Path) -> None:
    """A trial whose judge cannot be asked is counted apart, and the eval run goes on."""

    def judge(seen: Seen) -> bool:
        if seen.case.id == "a":
            raise NoVerdict("the judge is down")
        return True

    spec: EvalSpec[Any, str] = EvalSpec(cases=cases, observe=observe, scorers=(judge,))
    agent: GovernedAgent[Any, str] = govern(Agent(FunctionModel(echo, model_name="echo")), name="echo", trials=spec)
    report = await run_evals(runtime, agent)
    assert [(trial.case_id, trial.error) for trial in report.errors] == [("a", "judge_unavailable")]
    assert report.score is not None
    assert (report.score.mean, report.score.cases) == (1, 3)
