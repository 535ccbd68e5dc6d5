"""What an agent's eval runs over time are, whatever the engine."""

from datetime import timedelta
from functools import partial
from typing import Any

from handrail.evals.runner.eval_run import score_of
from handrail.evals.runner.history import case_through_time, eval_runs_over_time, list_eval_agents
from handrail.evals.scorers.score import Verdict
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.kernel.db.database import Database
from handrail.kernel.money import NanoUsd
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def trial(case_id: str, number: int = 1, value: float = 1.0, **changed: Any) -> Trial:
    fields: dict[str, Any] = {
        "run_id": f"run_{case_id}_{number}",
        "outcome": "answered",
        "path": "happy",
        "verdict": Verdict({}, {"graded": value}) if 0 < value < 1 else Verdict({"category": value == 1}),
        "observed": {},
        "duration_ns": 10,
        "cost": NanoUsd(2**50),
        "model": "test:model",
        "agent_hash": "abc",
    }
    return Trial(case_id=case_id, trial=number, **{**fields, **changed})


async def keep(database: Database, eval_run_id: str, *trials: Trial, agent: str = "a", seconds: int = 0) -> None:
    began = evals_store.start(eval_run_id, agent, "hash", 3, NOW + timedelta(seconds=seconds))
    await database.write(began, *(evals_store.add_trial(eval_run_id, each) for each in trials))


async def test_a_summary_is_what_its_trials_say(database: Database) -> None:
    """Score, counts, cost, models and fingerprint are those of the trials, the infrastructure's errors apart."""
    tried = (
        trial("x"),
        trial("x", 2, 0.0),
        trial("y", value=0.25),
        trial("z", value=0.0, error="model_unavailable", model=None, agent_hash=None),
        trial("y", 2, agent_hash="zzz", model="test:other"),
    )
    await keep(database, "eval_1", *tried)
    [found] = await database.read(partial(eval_runs_over_time, agent="a", limit=9))
    view, stored = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert found.eval_run == view
    assert found.score == score_of(stored)
    assert (found.trials, found.errors, found.cost) == (5, 1, 5 * 2**50)
    assert found.passed == sum(each.verdict.passed and each.error is None for each in stored)
    assert (found.agent_hash, found.models) == ("abc", ("test:model", "test:other"))


async def test_an_eval_run_without_trials_has_no_score(database: Database) -> None:
    """An eval run that was stopped before its first trial is listed all the same."""
    await keep(database, "eval_1")
    [found] = await database.read(partial(eval_runs_over_time, agent=None, limit=9))
    assert (found.score, found.trials, found.cost, found.agent_hash, found.models) == (None, 0, 0, None, ())


async def test_pages_have_every_eval_run_once(database: Database) -> None:
    """Going from page to page by the last eval run gives all of an agent's, the newest first, also of one moment."""
    for number in range(7):
        await keep(database, f"eval_{number}", agent="a" if number != 3 else "b", seconds=number // 3)
    everything = await database.read(partial(eval_runs_over_time, agent="a", limit=99))
    whole = [each.eval_run.eval_run_id for each in everything]
    assert whole == ["eval_6", "eval_5", "eval_4", "eval_2", "eval_1", "eval_0"]
    found: list[str] = []
    while page := await database.read(
        partial(eval_runs_over_time, agent="a", limit=2, before=found[-1] if found else None)
    ):
        found += [each.eval_run.eval_run_id for each in page]
    assert found == whole


async def test_agents_with_the_newest_eval_run_first(database: Database) -> None:
    """Each agent that was tried is named once."""
    for number, agent in enumerate(("a", "b", "a", "c")):
        await keep(database, f"eval_{number}", agent=agent, seconds=number)
    assert await database.read(list_eval_agents) == ["c", "a", "b"]


async def test_a_case_through_time(database: Database) -> None:
    """The case's trials by eval run, the newest first, of this agent only, and where it was tried at all."""
    await keep(database, "eval_1", trial("x", agent_hash="other"), trial("x", 2, 0.0), trial("y"))
    await keep(database, "eval_2", trial("y"), seconds=1)
    await keep(database, "eval_3", trial("x", value=0.0, error="model_timeout"), seconds=2)
    await keep(database, "eval_4", trial("x"), agent="b", seconds=3)
    found = await database.read(partial(case_through_time, agent="a", case_id="x", limit=9))
    assert [(each.eval_run.eval_run_id, len(each.trials), each.value, each.agent_hash) for each in found] == [
        ("eval_3", 1, None, "abc"),
        ("eval_1", 2, 0.5, "abc"),
    ]
