"""The store of labels and samples, on every engine."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from handrail.evals.store.labels import (
    Label,
    Sample,
    add_label,
    add_samples,
    list_labelled_eval_runs,
    load_labels,
    load_samples,
)
from handrail.kernel.db.database import Database
from handrail.testing import VirtualClock

NOW = VirtualClock().now()


def sample(position: int, **overrides: Any) -> Sample:
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
    return Sample(position=position, **{**fields, **overrides})


def label(sampled: Sample, by: str = "ann", right: bool | None = True, seconds: int = 0) -> Label:
    at = NOW + timedelta(seconds=seconds)
    return Label(
        eval_run_id=sampled.eval_run_id,
        judge=sampled.judge,
        case_id=sampled.case_id,
        trial=sampled.trial,
        by=by,
        right=right,
        at=at,
    )


async def labels(database: Database) -> list[Label]:
    return await database.read(load_labels(eval_run_id="eval_1", judge="tone"))


async def test_a_sample_is_stored(database: Database) -> None:
    """A sample is stored with its probability and seed, in the order in which people label it."""
    drawn = [sample(position) for position in range(3)]
    await database.write(add_samples(drawn[::-1]))
    load = partial(load_samples, eval_run_id="eval_1")
    assert await database.read(load(judge="tone")) == drawn
    assert await database.read(load(judge="facts")) == []


async def test_a_sample_is_never_rewritten(database: Database) -> None:
    """A second, larger sample adds to the first and does not change it."""
    await database.write(add_samples([sample(0)]))
    await database.write(add_samples([sample(0, probability=0.4), sample(1, probability=0.4)]))
    samples = await database.read(load_samples(eval_run_id="eval_1", judge="tone"))
    assert [stored.probability for stored in samples] == [0.2, 0.4]


@pytest.mark.parametrize("right", [True, False, None])
async def test_a_label_is_stored(database: Database, right: bool | None) -> None:
    """Right, wrong and skipped labels are stored with who gave them and when."""
    given = label(sample(0), right=right)
    assert await database.write(add_label(given)) == [True]
    assert await labels(database) == [given]


async def test_a_person_labels_a_trial_once(database: Database) -> None:
    """A second label by the same person changes nothing and returns False; another person's is stored too."""
    first, second = label(sample(0)), label(sample(0), by="ben", right=False, seconds=1)
    await database.write(add_label(first))
    assert await database.write(add_label(replace(first, right=False))) == [False]
    assert await database.write(add_label(second)) == [True]
    assert await labels(database) == [first, second]


async def test_concurrent_labels(database: Database) -> None:
    """Of concurrent labels by one person for one trial, one is stored."""
    results = await asyncio.gather(*(database.write(add_label(label(sample(0), seconds=n))) for n in range(10)))
    assert sum(stored for [stored] in results) == 1
    assert len(await labels(database)) == 1


async def test_the_most_labelled_comes_first(database: Database) -> None:
    """Labelled eval runs are listed with the judge's hash, most labels first; skipped trials do not count."""
    one, other = sample(0, eval_run_id="eval_1"), sample(0, eval_run_id="eval_2", judge_hash="h2")
    elsewhere, skipped = sample(0, eval_run_id="eval_3", agent="b"), sample(0, eval_run_id="eval_4")
    await database.write(add_samples([one, other, elsewhere, skipped]))
    given = [label(one), label(other), label(one, by="ben"), label(elsewhere), label(skipped, right=None)]
    await database.write(*map(add_label, given))
    query = list_labelled_eval_runs(agent="a", judge="tone")
    assert await database.read(query) == [("eval_1", "h1"), ("eval_2", "h2")]
