"""The history of an agent's eval runs, on every engine."""

from datetime import timedelta
from typing import Any

from handrail.evals.runner.eval_run import overall_score
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.evals.store.history import case_history, list_eval_agents, list_eval_run_summaries
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def trial(case_id: str, number: int = 1, value: float = 1.0, **overrides: Any) -> Trial:
    fields: dict[str, Any] = {
        "run_id": f"run_{case_id}_{number}",
        "outcome": "answered",
        "path": "happy",
        "score": TrialScore({}, {"graded": value}) if 0 < value < 1 else TrialScore({"category": value == 1}),
        "observed": {},
        "duration_ns": 10,
        "cost": NanoUsd(2**50),
        "model": "test:model",
        "agent_hash": "abc",
    }
    return Trial(case_id=case_id, trial=number, **{**fields, **overrides})


async def store_eval_run(
    database: Database, eval_run_id: str, *trials: Trial, agent: str = "a", seconds: int = 0
) -> None:
    start = evals_store.start_eval_run(eval_run_id, agent, "hash", 3, NOW + timedelta(seconds=seconds))
    await database.write(start, *(evals_store.add_trial(eval_run_id, one) for one in trials))


async def test_a_summary_agrees_with_its_trials(database: Database) -> None:
    """Score, counts, cost, models and fingerprint are those of the trials, infrastructure errors left out."""
    trials = (
        trial("x"),
        trial("x", 2, 0.0),
        trial("y", value=0.25),
        trial("z", value=0.0, error="model_unavailable", model=None, agent_hash=None),
        trial("y", 2, agent_hash="zzz", model="test:other"),
    )
    await store_eval_run(database, "eval_1", *trials)
    [summary] = await database.read(list_eval_run_summaries(agent="a", limit=9))
    view, stored = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert summary.eval_run == view
    assert summary.score == overall_score(stored)
    assert (summary.trials, summary.errors, summary.cost) == (5, 1, 5 * 2**50)
    assert summary.passed == sum(one.score.passed and one.error is None for one in stored)
    assert (summary.agent_hash, summary.models) == ("abc", ("test:model", "test:other"))


async def test_an_eval_run_without_trials_has_no_score(database: Database) -> None:
    """An eval run that was stopped before its first trial is listed without a score."""
    await store_eval_run(database, "eval_1")
    [summary] = await database.read(list_eval_run_summaries(agent=None, limit=9))
    assert (summary.score, summary.trials, summary.cost, summary.agent_hash, summary.models) == (None, 0, 0, None, ())


async def test_pages_have_every_eval_run_once(database: Database) -> None:
    """Pages together have all eval runs of an agent, newest first, also those of the same time."""
    for number in range(7):
        await store_eval_run(database, f"eval_{number}", agent="a" if number != 3 else "b", seconds=number // 3)
    summaries = await database.read(list_eval_run_summaries(agent="a", limit=99))
    whole = [listed.eval_run.eval_run_id for listed in summaries]
    assert whole == ["eval_6", "eval_5", "eval_4", "eval_2", "eval_1", "eval_0"]
    paged: list[str] = []
    while page := await database.read(list_eval_run_summaries(agent="a", limit=2, before=paged[-1] if paged else None)):
        paged += [listed.eval_run.eval_run_id for listed in page]
    assert paged == whole


async def test_agents_with_the_newest_eval_run_first(database: Database) -> None:
    """Each agent with eval runs is listed once."""
    for number, agent in enumerate(("a", "b", "a", "c")):
        await store_eval_run(database, f"eval_{number}", agent=agent, seconds=number)
    assert await database.read(list_eval_agents()) == ["c", "a", "b"]


async def test_the_history_of_a_case(database: Database) -> None:
    """The trials of a case are listed by eval run, newest first, for this agent only."""
    await store_eval_run(database, "eval_1", trial("x", agent_hash="other"), trial("x", 2, 0.0), trial("y"))
    await store_eval_run(database, "eval_2", trial("y"), seconds=1)
    await store_eval_run(database, "eval_3", trial("x", value=0.0, error="model_timeout"), seconds=2)
    await store_eval_run(database, "eval_4", trial("x"), agent="b", seconds=3)
    history = await database.read(case_history(agent="a", case_id="x", limit=9))
    assert [(entry.eval_run.eval_run_id, len(entry.trials), entry.value, entry.agent_hash) for entry in history] == [
        ("eval_3", 1, None, "abc"),
        ("eval_1", 2, 0.5, "abc"),
    ]
