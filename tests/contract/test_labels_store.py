"""What the store of labels promises, whatever the engine."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from handrail.evals.store.labels import Label, Sample, add_label, add_samples, best_labelled, load_labels, load_samples
from handrail.kernel.db.database import Database
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def sample(position: int, **changed: Any) -> Sample:
    fields: dict[str, Any] = {
        "eval_run_id": "eval_1",
        "judge": "tone",
        "case_id": f"case-{9 - position}",
        "trial": 1,
        "agent": "a",
        "judge_hash": "h1",
        "people": 1,
        "probability": 0.2,
        "seed": 2**47,
    }
    return Sample(position=position, **{**fields, **changed})


def label(of: Sample, by: str = "ann", right: bool | None = True, seconds: int = 0) -> Label:
    at = NOW + timedelta(seconds=seconds)
    return Label(
        eval_run_id=of.eval_run_id, judge=of.judge, case_id=of.case_id, trial=of.trial, by=by, right=right, at=at
    )


async def labels(database: Database) -> list[Label]:
    return await database.read(partial(load_labels, eval_run_id="eval_1", judge="tone"))


async def test_a_draw_comes_back(database: Database) -> None:
    """What was drawn is kept with its chance and its seed, in the order in which people get it."""
    drawn = [sample(position) for position in range(3)]
    await database.write(add_samples(drawn[::-1]))
    found = partial(load_samples, eval_run_id="eval_1")
    assert await database.read(partial(found, judge="tone")) == drawn
    assert await database.read(partial(found, judge="facts")) == []


async def test_a_draw_is_never_rewritten(database: Database) -> None:
    """A second, larger draw adds to the first, and leaves what is there as it was."""
    await database.write(add_samples([sample(0)]))
    await database.write(add_samples([sample(0, probability=0.4), sample(1, probability=0.4)]))
    found = await database.read(partial(load_samples, eval_run_id="eval_1", judge="tone"))
    assert [each.probability for each in found] == [0.2, 0.4]


@pytest.mark.parametrize("right", [True, False, None])
async def test_a_label_comes_back(database: Database, right: bool | None) -> None:
    """Right, wrong and skipped come back as they were said, with who and when."""
    said = label(sample(0), right=right)
    assert await database.write(add_label(said)) == [True]
    assert await labels(database) == [said]


async def test_a_person_labels_a_trial_once(database: Database) -> None:
    """A second label by the same person changes nothing and says so; another person's is kept beside it."""
    first, second = label(sample(0)), label(sample(0), by="ben", right=False, seconds=1)
    await database.write(add_label(first))
    assert await database.write(add_label(replace(first, right=False))) == [False]
    assert await database.write(add_label(second)) == [True]
    assert await labels(database) == [first, second]


async def test_labels_at_once(database: Database) -> None:
    """Of labels by one person for one trial, given side by side, one is kept."""
    kept = await asyncio.gather(*(database.write(add_label(label(sample(0), seconds=n))) for n in range(10)))
    assert sum(fresh for [fresh] in kept) == 1
    assert len(await labels(database)) == 1


async def test_the_most_labelled_comes_first(database: Database) -> None:
    """An agent's labelled eval runs come with the judge's hash, most labels first; skipped trials are no labels."""
    one, other = sample(0, eval_run_id="eval_1"), sample(0, eval_run_id="eval_2", judge_hash="h2")
    elsewhere, skipped = sample(0, eval_run_id="eval_3", agent="b"), sample(0, eval_run_id="eval_4")
    await database.write(add_samples([one, other, elsewhere, skipped]))
    said = [label(one), label(other), label(one, by="ben"), label(elsewhere), label(skipped, right=None)]
    await database.write(*map(add_label, said))
    found = partial(best_labelled, agent="a", judge="tone")
    assert await database.read(found) == [("eval_1", "h1"), ("eval_2", "h2")]
