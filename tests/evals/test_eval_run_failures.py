"""What befalls an eval run: a full disk, another one beside it, a set that is edited meanwhile."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from handrail import BadInput, Runtime
from handrail.evals.eval_set.model import Case, freeze, load_set
from handrail.evals.gate.gate import promote
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.runner.task import CallableTask
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.kernel.errors import StoreFull
from handrail.testing import sandbox

CASES = 12


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as opened:
        yield opened


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of twelve cases."""
    path = tmp_path / "cases.yaml"
    row = "  - {{id: c-{n:02}, input: say {n}, expect: {{said: say {n}}}, source: this test, date: 2026-11-22}}\n"
    path.write_text(
        "name: echo\ndescription: What comes back.\ncases:\n" + "".join(row.format(n=n) for n in range(CASES))
    )
    freeze(path, "first", dt.date(2026, 11, 22))
    return path


def echo(cases: Path, padding: int = 0, asked: list[str] | None = None) -> CallableTask:
    def answer(text: str) -> dict[str, str]:
        if asked is not None:
            asked.append(text)
        return {"said": text, "more": "x" * padding}

    return CallableTask(answer, name="echo", cases=cases)


async def test_a_full_disk(runtime: Runtime, cases: Path) -> None:
    """The eval run ends in an error that says what to do; with room again it makes the trials that are not there."""
    pages = runtime.database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
    room = [pages + 40]

    def limit(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={room[0]}")

    event.listen(runtime.database._engine, "checkout", limit)
    told: list[str] = []
    with pytest.raises(StoreFull, match="make room"):
        await run_evals(runtime, echo(cases, 20_000), on_trial=lambda case, _trial: told.append(case.id))
    # What was on its way to the store when the first write failed is done with once this is.
    await runtime.database.write(lambda _conn: None)
    [view] = await runtime.database.read(lambda conn: list_eval_runs(conn, None, 9))
    _, kept = await runtime.database.read(lambda conn: load_eval_run(conn, view.eval_run_id))
    there = {trial.case_id for trial in kept}
    assert set(told) <= there
    assert len(there) < CASES
    room[0], asked = 1_000_000, list[str]()
    report = await run_evals(runtime, echo(cases, 20_000, asked), resume=view.eval_run_id)
    missing = [case for case in load_set(cases).cases if case.id not in there]
    assert asked == [case.input for case in missing]
    assert [trial.case_id for trial in report.trials] == [case.id for case in load_set(cases).cases]


async def test_two_at_once(runtime: Runtime, cases: Path) -> None:
    """Two eval runs of one agent beside each other have all their trials each, and none of the other's."""
    reports = await asyncio.gather(*(run_evals(runtime, echo(cases), trials=2, at_once=3) for _ in range(2)))
    assert reports[0].eval_run_id != reports[1].eval_run_id
    for report in reports:
        view, trials = await runtime.database.read(partial(load_eval_run, eval_run_id=report.eval_run_id))
        assert view.ended_at is not None
        assert len(trials) == len(report.trials) == 2 * CASES


async def test_a_set_that_is_edited_meanwhile(runtime: Runtime, cases: Path) -> None:
    """The eval run is of the set as it was when it began, says so by its hash, and is no baseline for the new one."""
    before = load_set(cases).content_hash

    def edit(_case: Case, _trial: Trial) -> None:
        cases.write_text(cases.read_text().replace("say 11", "say eleven"))

    report = await run_evals(runtime, echo(cases), on_trial=edit)
    assert report.set_hash == before
    assert [trial.observed["said"] for trial in report.trials][-1] == "say 11"
    with pytest.raises(BadInput, match="undo that, or freeze it with a reason"):
        await promote(runtime, echo(cases), report.eval_run_id, by="ann")
    freeze(cases, "eleven in words", dt.date(2026, 11, 23))
    with pytest.raises(BadInput, match="the set has changed since it ran"):
        await promote(runtime, echo(cases), report.eval_run_id, by="ann")
