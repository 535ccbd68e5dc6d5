"""The store of eval runs, baselines and gates, on every engine."""

import asyncio
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from handrail.evals.gate.decision_rule import interim_stats, plain_rule
from handrail.evals.gate.verdict_store import GateRecord, add_gate, list_gates
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store import baselines as baselines_store
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.baselines import Baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def trial(case_id: str, number: int = 1, **overrides: Any) -> Trial:
    fields: dict[str, Any] = {
        "run_id": f"run_{case_id}",
        "outcome": "answered",
        "path": "happy",
        "score": TrialScore({"category": True, "order": False}),
        "observed": {"category": "delivery", "order": None},
        "duration_ns": 2**40,
        "cost": NanoUsd(2**50),
        "model": "test:model",
        "agent_hash": "abc",
    }
    return Trial(case_id=case_id, trial=number, **{**fields, **overrides})


def start(eval_run_id: str = "eval_1", agent: str = "a", seconds: int = 0) -> Any:
    return evals_store.start_eval_run(eval_run_id, agent, "hash", 3, NOW + timedelta(seconds=seconds))


async def test_a_trial_is_loaded_as_stored(database: Database) -> None:
    """Every field of a trial is loaded as it was stored, also without data about its run."""
    bare = trial("b", path=None, model=None, agent_hash=None, observed={}, score=TrialScore({"order": False}))
    await database.write(start(), evals_store.add_trial("eval_1", trial("a")), evals_store.add_trial("eval_1", bare))
    view, stored_trials = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert list(stored_trials) == [trial("a"), bare]
    assert (view.agent, view.set_hash, view.cases, view.started_at, view.ended_at) == ("a", "hash", 3, NOW, None)


async def test_trials_one_by_one(database: Database) -> None:
    """Each trial can be loaded once it is written, before the eval run has ended."""
    await database.write(start())
    for number, case_id in enumerate("cab", 1):
        await database.write(evals_store.add_trial("eval_1", trial(case_id)))
        view, stored_trials = await database.read(load_eval_run(eval_run_id="eval_1"))
        assert (len(stored_trials), view.ended_at) == (number, None)
    await database.write(evals_store.end_eval_run("eval_1", NOW + timedelta(minutes=1)))
    view, stored_trials = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert [one.case_id for one in stored_trials] == ["a", "b", "c"]
    assert view.ended_at == NOW + timedelta(minutes=1)


async def test_concurrent_trials(database: Database) -> None:
    """Trials that are written concurrently are all stored, ordered by case and number."""
    await database.write(start())
    trials = [trial(f"case-{n:02}", number) for n in range(10) for number in (2, 1)]
    await asyncio.gather(*(database.write(evals_store.add_trial("eval_1", one)) for one in trials))
    _, stored_trials = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert list(stored_trials) == sorted(trials, key=lambda one: (one.case_id, one.trial))


async def test_a_trial_is_never_rewritten(database: Database) -> None:
    """A second trial with the same case and number is refused, and the first is kept."""
    await database.write(start(), evals_store.add_trial("eval_1", trial("a")))
    with pytest.raises(IntegrityError):
        await database.write(evals_store.add_trial("eval_1", trial("a", outcome="failed")))
    _, stored_trials = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert list(stored_trials) == [trial("a")]


async def test_any_observation(database: Database) -> None:
    """Observed values that JSON cannot represent are stored as text, and bytes as base64."""
    await database.write(start(), evals_store.add_trial("eval_1", trial("a", observed={"b": b"\xff", "c": 1j})))
    _, [stored_trial] = await database.read(load_eval_run(eval_run_id="eval_1"))
    assert stored_trial.observed == {"b": "_w==", "c": "1j"}


async def test_lists(database: Database) -> None:
    """Eval runs are listed newest first, of one agent if given."""
    await database.write(
        start("eval_1", "a", 1), start("eval_2", "b", 3), start("eval_3", "a", 2), start("eval_4", "a", 2)
    )
    all_runs = await database.read(list_eval_runs(agent=None, limit=100))
    assert [view.eval_run_id for view in all_runs] == ["eval_2", "eval_4", "eval_3", "eval_1"]
    of_a = await database.read(list_eval_runs(agent="a", limit=2))
    assert [view.eval_run_id for view in of_a] == ["eval_4", "eval_3"]


async def test_not_found(database: Database) -> None:
    """An unknown eval run raises NotFound, with the command that lists eval runs."""
    with pytest.raises(NotFound, match="handrail eval list"):
        await database.read(load_eval_run(eval_run_id="eval_9"))


def baseline(number: int, seconds: int, agent: str = "a", set_hash: str = "set", **overrides: Any) -> Baseline:
    fields = {"agent_hash": "abc", "eval_run_id": f"eval_{number}", "by": "ann", **overrides}
    at = NOW + timedelta(seconds=seconds)
    return Baseline(baseline_id=f"base_{number}", agent=agent, set_hash=set_hash, at=at, **fields)


async def add_baselines(database: Database, *baselines: Baseline) -> None:
    await database.write(*map(baselines_store.add_baseline, baselines))


async def test_the_newest_baseline_counts(database: Database) -> None:
    """Of an agent's baselines for one state of its set the newest is used, in any order of writing."""
    first, newest, tied = baseline(1, 10), baseline(3, 20), baseline(2, 20, agent_hash=None)
    await add_baselines(database, newest, first, tied)
    assert await database.read(newest_baseline(agent="a", set_hash="set")) == newest
    assert await database.read(list_baselines(agent="a", limit=9)) == [newest, tied, first]
    assert await database.read(list_baselines(agent="a", limit=1)) == [newest]


async def test_a_baseline_is_for_one_agent_and_one_set(database: Database) -> None:
    """Another agent's baseline, or one for another state of the set, is never used."""
    await add_baselines(database, baseline(1, 10, agent="b"), baseline(2, 20, set_hash="other"))
    assert await database.read(newest_baseline(agent="a", set_hash="set")) is None
    assert [stored.baseline_id for stored in await database.read(list_baselines(agent="a", limit=9))] == ["base_2"]


async def test_baselines_are_kept(database: Database) -> None:
    """A baseline's id is unique, and a stored baseline is never rewritten."""
    await add_baselines(database, baseline(1, 10))
    with pytest.raises(IntegrityError):
        await add_baselines(database, baseline(1, 20, agent_hash="def"))
    assert await database.read(newest_baseline(agent="a", set_hash="set")) == baseline(1, 10)


async def test_concurrent_baselines(database: Database) -> None:
    """Baselines that are created concurrently are all stored, and the newest is used."""
    baselines = [baseline(number, number % 3) for number in range(10, 30)]
    await asyncio.gather(*(add_baselines(database, one) for one in baselines))
    stored = await database.read(list_baselines(agent="a", limit=99))
    assert stored == sorted(baselines, key=lambda one: (one.at, one.baseline_id), reverse=True)
    assert await database.read(newest_baseline(agent="a", set_hash="set")) == stored[0]


async def test_gate_verdicts_are_stored(database: Database) -> None:
    """Verdicts are stored with exact shares, and an agent's are listed newest first."""
    old = {"a": [Fraction(1)], "b": [Fraction(1, 3)], "c": [Fraction(0)]}
    new = {"a": [Fraction(1, 7)], "b": [Fraction(1, 3)], "c": [Fraction(1)]}
    gates = [
        GateRecord(
            gate_id=f"gate_{number}",
            agent=agent,
            baseline_id="base_1",
            eval_run_id="eval_1",
            verdict=plain_rule(interim_stats(*sides)),
            at=NOW + timedelta(seconds=number),
        )
        for number, agent, sides in [(1, "a", (old, new)), (2, "b", (old, new)), (3, "a", (new, old))]
    ]
    await database.write(*map(add_gate, gates))
    assert [gate.verdict.passed for gate in gates] == [True, True, False]
    assert await database.read(list_gates(agent="a", limit=9)) == [gates[2], gates[0]]
    assert await database.read(list_gates(agent="a", limit=1)) == [gates[2]]
