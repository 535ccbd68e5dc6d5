"""What the store of eval runs promises, whatever the engine."""

import asyncio
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from handrail.evals.gate.decision_rule import compared, plain_rule
from handrail.evals.gate.verdict_store import GateView, add_gate, list_gates
from handrail.evals.scorers.score import Verdict
from handrail.evals.store import baselines as baselines_store
from handrail.evals.store import eval_runs as evals_store
from handrail.evals.store.baselines import Baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.kernel.db.database import Database
from handrail.kernel.errors import NotFound
from handrail.kernel.money import NanoUsd
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def trial(case_id: str, number: int = 1, **changed: Any) -> Trial:
    fields: dict[str, Any] = {
        "run_id": f"run_{case_id}",
        "outcome": "answered",
        "path": "happy",
        "verdict": Verdict({"category": True, "order": False}),
        "observed": {"category": "delivery", "order": None},
        "duration_ns": 2**40,
        "cost": NanoUsd(2**50),
        "model": "test:model",
        "agent_hash": "abc",
    }
    return Trial(case_id=case_id, trial=number, **{**fields, **changed})


def begun(eval_run_id: str = "eval_1", agent: str = "a", seconds: int = 0) -> Any:
    return evals_store.start(eval_run_id, agent, "hash", 3, NOW + timedelta(seconds=seconds))


async def test_a_trial_comes_back(database: Database) -> None:
    """Every field of a trial comes back as it was stored, also where nothing is known of its run."""
    bare = trial("b", path=None, model=None, agent_hash=None, observed={}, verdict=Verdict({"order": False}))
    await database.write(begun(), evals_store.add_trial("eval_1", trial("a")), evals_store.add_trial("eval_1", bare))
    view, found = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert list(found) == [trial("a"), bare]
    assert (view.agent, view.set_hash, view.cases, view.started_at, view.ended_at) == ("a", "hash", 3, NOW, None)


async def test_trials_one_by_one(database: Database) -> None:
    """Each trial is there once it is written, before the eval run is at its end."""
    await database.write(begun())
    for number, case_id in enumerate("cab", 1):
        await database.write(evals_store.add_trial("eval_1", trial(case_id)))
        view, found = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
        assert (len(found), view.ended_at) == (number, None)
    await database.write(evals_store.end("eval_1", NOW + timedelta(minutes=1)))
    view, found = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert [each.case_id for each in found] == ["a", "b", "c"]
    assert view.ended_at == NOW + timedelta(minutes=1)


async def test_trials_at_once(database: Database) -> None:
    """Trials written side by side are all there, ordered by case and number."""
    await database.write(begun())
    made = [trial(f"case-{n:02}", number) for n in range(10) for number in (2, 1)]
    await asyncio.gather(*(database.write(evals_store.add_trial("eval_1", each)) for each in made))
    _, found = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert list(found) == sorted(made, key=lambda each: (each.case_id, each.trial))


async def test_a_trial_is_never_rewritten(database: Database) -> None:
    """A second trial under the same case and number is refused, and the first stays."""
    await database.write(begun(), evals_store.add_trial("eval_1", trial("a")))
    with pytest.raises(IntegrityError):
        await database.write(evals_store.add_trial("eval_1", trial("a", outcome="failed")))
    _, found = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert list(found) == [trial("a")]


async def test_any_observation(database: Database) -> None:
    """What was observed and JSON cannot hold is kept by its text, bytes as base64."""
    await database.write(begun(), evals_store.add_trial("eval_1", trial("a", observed={"b": b"\xff", "c": 1j})))
    _, [found] = await database.read(partial(load_eval_run, eval_run_id="eval_1"))
    assert found.observed == {"b": "_w==", "c": "1j"}


async def test_lists(database: Database) -> None:
    """Eval runs are listed newest first, of one agent where asked."""
    await database.write(
        begun("eval_1", "a", 1), begun("eval_2", "b", 3), begun("eval_3", "a", 2), begun("eval_4", "a", 2)
    )
    everything = await database.read(partial(list_eval_runs, agent=None, limit=100))
    assert [each.eval_run_id for each in everything] == ["eval_2", "eval_4", "eval_3", "eval_1"]
    of_a = await database.read(partial(list_eval_runs, agent="a", limit=2))
    assert [each.eval_run_id for each in of_a] == ["eval_4", "eval_3"]


async def test_not_found(database: Database) -> None:
    """An eval run that is not there is NotFound, with the command that lists them."""
    with pytest.raises(NotFound, match="handrail eval list"):
        await database.read(partial(load_eval_run, eval_run_id="eval_9"))


def baseline(number: int, seconds: int, agent: str = "a", set_hash: str = "set", **changed: Any) -> Baseline:
    fields = {"agent_hash": "abc", "eval_run_id": f"eval_{number}", "by": "ann", **changed}
    at = NOW + timedelta(seconds=seconds)
    return Baseline(baseline_id=f"base_{number}", agent=agent, set_hash=set_hash, at=at, **fields)


async def add_baselines(database: Database, *made: Baseline) -> None:
    await database.write(*map(baselines_store.add_baseline, made))


async def test_the_newest_baseline_counts(database: Database) -> None:
    """Of an agent's baselines for one state of its set the newest counts, whatever the order of writing."""
    first, newest, tied = baseline(1, 10), baseline(3, 20), baseline(2, 20, agent_hash=None)
    await add_baselines(database, newest, first, tied)
    assert await database.read(partial(newest_baseline, agent="a", set_hash="set")) == newest
    assert await database.read(partial(list_baselines, agent="a", limit=9)) == [newest, tied, first]
    assert await database.read(partial(list_baselines, agent="a", limit=1)) == [newest]


async def test_a_baseline_is_for_one_agent_and_one_set(database: Database) -> None:
    """Another agent's baseline, or one for another state of the set, never counts."""
    await add_baselines(database, baseline(1, 10, agent="b"), baseline(2, 20, set_hash="other"))
    assert await database.read(partial(newest_baseline, agent="a", set_hash="set")) is None
    assert [each.baseline_id for each in await database.read(partial(list_baselines, agent="a", limit=9))] == ["base_2"]


async def test_baselines_are_kept(database: Database) -> None:
    """A baseline's id is taken once: the one that is there is never rewritten."""
    await add_baselines(database, baseline(1, 10))
    with pytest.raises(IntegrityError):
        await add_baselines(database, baseline(1, 20, agent_hash="def"))
    assert await database.read(partial(newest_baseline, agent="a", set_hash="set")) == baseline(1, 10)


async def test_baselines_at_once(database: Database) -> None:
    """Baselines set side by side are all kept, and one of them counts."""
    made = [baseline(number, number % 3) for number in range(10, 30)]
    await asyncio.gather(*(add_baselines(database, each) for each in made))
    kept = await database.read(partial(list_baselines, agent="a", limit=99))
    assert kept == sorted(made, key=lambda each: (each.at, each.baseline_id), reverse=True)
    assert await database.read(partial(newest_baseline, agent="a", set_hash="set")) == kept[0]


async def test_verdicts_of_the_gate_come_back(database: Database) -> None:
    """Every verdict is kept as it was, its shares exact, and an agent's are listed newest first."""
    old = {"a": [Fraction(1)], "b": [Fraction(1, 3)], "c": [Fraction(0)]}
    new = {"a": [Fraction(1, 7)], "b": [Fraction(1, 3)], "c": [Fraction(1)]}
    made = [
        GateView(
            gate_id=f"gate_{number}",
            agent=agent,
            baseline_id="base_1",
            eval_run_id="eval_1",
            verdict=plain_rule(compared(*sides)),
            at=NOW + timedelta(seconds=number),
        )
        for number, agent, sides in [(1, "a", (old, new)), (2, "b", (old, new)), (3, "a", (new, old))]
    ]
    await database.write(*map(add_gate, made))
    assert [each.verdict.passed for each in made] == [True, True, False]
    assert await database.read(partial(list_gates, agent="a", limit=9)) == [made[2], made[0]]
    assert await database.read(partial(list_gates, agent="a", limit=1)) == [made[2]]
