"""An agent over its frozen set: every trial a governed run, committed as it ends."""

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from handrail import Answered, BadInput, GovernedAgent, Outcome, RunRequest, Runtime, Trials, govern
from handrail.evals import TENANT, Case, Trial, freeze, list_eval_runs, load_eval_run, load_set, run_evals
from handrail.runs import list_runs
from handrail.testing import sandbox

CASES = """\
name: echo
description: What comes back.
cases:
"""
TODAY = dt.date(2026, 11, 22)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as opened:
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
    trials = None if cases is None else Trials[Any, str](cases=cases, observe=observe, deps=options.pop("fresh", None))
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

    def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ConnectionError("gone")

    report = await run_evals(runtime, governed(cases, down))
    assert report.score.mean == 0
    assert {(trial.outcome, trial.path) for trial in report.trials} == {("failed", "failed")}
    assert {tuple(trial.verdict.fields.items()) for trial in report.trials} == {(("said", False),)}


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
    with pytest.raises(BadInput, match=r"Trials\(cases="):
        await run_evals(runtime, governed(None))
