"""What the store of eval runs promises, whatever the engine."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from handrail.evals import Trial, Verdict, list_eval_runs, load_eval_run
from handrail.evals import store as evals_store
from handrail.kernel import Database, NanoUsd, NotFound
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
