"""Eval runs with a full disk, with a concurrent eval run, and with a set that is edited meanwhile."""

import asyncio
import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from handrail import BadInput, Runtime
from handrail.evals import EvalSpec
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import Case, load_eval_set
from handrail.evals.gate.baseline import baseline_from_eval_run
from handrail.evals.runner.eval_run import run_evals
from handrail.evals.store.eval_runs import Trial, list_eval_runs, load_eval_run
from handrail.kernel.errors import StoreFull
from handrail.testing import sandbox

CASES = 12


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with sandbox(tmp_path) as active:
        yield active


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A frozen set of twelve cases."""
    path = tmp_path / "cases.yaml"
    row = "  - {{id: c-{n:02}, input: say {n}, expect: {{reply: say {n}}}, source: this test, date: 2026-11-22}}\n"
    path.write_text(
        "name: echo\ndescription: The input, repeated.\ncases:\n" + "".join(row.format(n=n) for n in range(CASES))
    )
    freeze(path, "first", dt.date(2026, 11, 22))
    return path


def echo(cases: Path, padding: int = 0, inputs: list[str] | None = None) -> EvalSpec[Any, Any]:
    def answer(text: str) -> dict[str, str]:
        if inputs is not None:
            inputs.append(text)
        # Random, because what a trial observed is stored compressed.
        return {"reply": text, "more": random.Random(text).randbytes(padding).hex()}

    return EvalSpec(agent=answer, name="echo", cases=cases)


async def test_a_full_disk(runtime: Runtime, cases: Path) -> None:
    """A full disk stops the eval run with advice; resumed with space again, it makes the missing trials."""
    pages = runtime.database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
    page_limit = [pages + 40]

    def limit(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={page_limit[0]}")

    event.listen(runtime.database._engine, "checkout", limit)
    reported: list[str] = []
    with pytest.raises(StoreFull, match="make room"):
        await run_evals(runtime, echo(cases, 20_000), on_trial=lambda case, _trial: reported.append(case.id))
    # This write waits for those that were in flight when the first one failed.
    await runtime.database.write(lambda _conn: None)
    [view] = await runtime.database.read(list_eval_runs(None, 9))
    _, kept = await runtime.database.read(load_eval_run(view.eval_run_id))
    stored_ids = {trial.case_id for trial in kept}
    assert set(reported) <= stored_ids
    assert len(stored_ids) < CASES
    page_limit[0], inputs = 1_000_000, list[str]()
    report = await run_evals(runtime, echo(cases, 20_000, inputs), resume=view.eval_run_id)
    missing = [case for case in load_eval_set(cases).cases if case.id not in stored_ids]
    assert inputs == [case.input for case in missing]
    assert [trial.case_id for trial in report.trials] == [case.id for case in load_eval_set(cases).cases]


async def test_two_concurrent_eval_runs(runtime: Runtime, cases: Path) -> None:
    """Two concurrent eval runs of one agent each have all their own trials."""
    reports = await asyncio.gather(*(run_evals(runtime, echo(cases), trials=2, concurrency=3) for _ in range(2)))
    assert reports[0].eval_run_id != reports[1].eval_run_id
    for report in reports:
        view, trials = await runtime.database.read(load_eval_run(eval_run_id=report.eval_run_id))
        assert view.ended_at is not None
        assert len(trials) == len(report.trials) == 2 * CASES


async def test_a_set_that_is_edited_meanwhile(runtime: Runtime, cases: Path) -> None:
    """An eval run uses the set as it was at its start, has its hash, and cannot become a baseline of the new one."""
    before = load_eval_set(cases).content_hash

    def edit(_case: Case, _trial: Trial) -> None:
        cases.write_text(cases.read_text().replace("say 11", "say eleven"))

    report = await run_evals(runtime, echo(cases), on_trial=edit)
    assert report.set_hash == before
    assert [trial.observed["reply"] for trial in report.trials][-1] == "say 11"
    with pytest.raises(BadInput, match="undo the change, or freeze it with a reason"):
        await baseline_from_eval_run(runtime, echo(cases), report.eval_run_id, by="ann")
    freeze(cases, "eleven in words", dt.date(2026, 11, 23))
    with pytest.raises(BadInput, match="the set has changed since it ran"):
        await baseline_from_eval_run(runtime, echo(cases), report.eval_run_id, by="ann")
