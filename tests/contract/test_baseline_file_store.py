"""Importing a baseline file into the store, on every engine."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.evals.store.baseline_file import BaselineFile, import_baseline_file
from handrail.evals.store.baselines import Baseline, list_baselines
from handrail.evals.store.eval_runs import EvalRunView, list_eval_runs, load_eval_run
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.testing import VirtualClock
from tests.evals.scorer_contexts import trial

NOW = VirtualClock().now()
VIEW = EvalRunView(
    eval_run_id="eval_1",
    agent="a",
    set_hash="hash",
    cases=2,
    started_at=NOW,
    ended_at=NOW + timedelta(seconds=9),
    scored_by={"exact": "e"},
)
BASELINE = Baseline(
    baseline_id="base_1",
    agent="a",
    set_hash="hash",
    agent_hash="a" * 64,
    eval_run_id="eval_1",
    by="ann",
    at=NOW,
    scored_by={"exact": "e"},
)
TRIALS = (trial("late", True), trial("twice", False, observed={"category": None, "reply": "\x00 é \u2028", "n": 2**70}))
BASELINE_FILE = BaselineFile(path=Path("b.jsonl"), baseline=BASELINE, view=VIEW, trials=TRIALS)


async def test_a_file_is_imported_once(database: Database) -> None:
    """Importing a file again adds nothing, and the stored baseline is that of the file."""
    for _ in range(2):
        await database.write(import_baseline_file(BASELINE_FILE))
    assert await database.read(list_baselines("a", 9)) == [BASELINE]
    assert await database.read(list_eval_runs("a", 9)) == [VIEW]
    assert await database.read(load_eval_run("eval_1")) == (VIEW, list(TRIALS))


@pytest.mark.parametrize(
    "file",
    [
        replace(BASELINE_FILE, trials=(trial("late", False), TRIALS[1])),
        replace(BASELINE_FILE, trials=TRIALS[:1]),
        replace(BASELINE_FILE, baseline=replace(BASELINE, by="ben")),
    ],
)
async def test_stored_baselines_are_not_overwritten(database: Database, file: BaselineFile) -> None:
    """A file with different content for the same eval run or baseline is refused, and the store is not changed."""
    await database.write(import_baseline_file(BASELINE_FILE))
    with pytest.raises(
        BadInput, match=r"b.jsonl: the store has eval run eval_1 with different content; .*--write b.jsonl"
    ):
        await database.write(import_baseline_file(file))
    assert await database.read(load_eval_run("eval_1")) == (VIEW, list(TRIALS))
    assert await database.read(list_baselines("a", 9)) == [BASELINE]
