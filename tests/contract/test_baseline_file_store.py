"""A baseline out of a file, whatever the engine."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.evals.store.baseline_file import Carried, bring_in
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
MADE = (trial("late", True), trial("twice", False, observed={"category": None, "said": "\x00 é \u2028", "n": 2**70}))
CARRIED = Carried(path=Path("b.jsonl"), baseline=BASELINE, view=VIEW, trials=MADE)


async def test_a_file_is_brought_in_once(database: Database) -> None:
    """The same file twice adds nothing, and what is read back is what it held."""
    for _ in range(2):
        await database.write(bring_in(CARRIED))
    assert await database.read(lambda conn: list_baselines(conn, "a", 9)) == [BASELINE]
    assert await database.read(lambda conn: list_eval_runs(conn, "a", 9)) == [VIEW]
    assert await database.read(lambda conn: load_eval_run(conn, "eval_1")) == (VIEW, list(MADE))


@pytest.mark.parametrize(
    "changed",
    [
        replace(CARRIED, trials=(trial("late", False), MADE[1])),
        replace(CARRIED, trials=MADE[:1]),
        replace(CARRIED, baseline=replace(BASELINE, by="ben")),
    ],
)
async def test_what_is_there_is_not_written_over(database: Database, changed: Carried) -> None:
    """A file with another content for the same eval run or baseline is refused, and the store stays as it was."""
    await database.write(bring_in(CARRIED))
    with pytest.raises(
        BadInput, match=r"b.jsonl: the store has eval run eval_1 with another content .*--write b.jsonl"
    ):
        await database.write(bring_in(changed))
    assert await database.read(lambda conn: load_eval_run(conn, "eval_1")) == (VIEW, list(MADE))
    assert await database.read(lambda conn: list_baselines(conn, "a", 9)) == [BASELINE]
