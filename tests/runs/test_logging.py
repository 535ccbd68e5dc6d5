"""The log of a run has events and ids, never text from users or models."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError

from handrail import (
    Failed,
    FellBack,
    OutcomeNotStored,
    Refused,
    RunRequest,
    Runtime,
    Settings,
    govern,
    tool,
    use_runtime,
)
from handrail.config.settings import Ceilings
from tests.runs.scripts import Count, Script, calls, counts, says

SECRET = "my card is 4111"


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="handrail")


def logged(caplog: pytest.LogCaptureFixture, *fields: str) -> list[tuple[Any, ...]]:
    """Level, message and the given extra fields of each log record of a run."""
    records = [record for record in caplog.records if record.name.startswith("handrail.runs")]
    assert SECRET not in "".join(str(vars(record)) for record in records)
    return [
        (record.levelname, record.getMessage(), *(getattr(record, field) for field in fields)) for record in records
    ]


async def fallback(_request: RunRequest) -> str:
    return "from the handler"


async def test_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """An answered run logs nothing."""
    await govern(Agent(Script(says("ok")).model), name="a").run(SECRET, user="u")
    assert logged(caplog) == []


async def test_a_refusal(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A refused request is logged with the ceiling's scope."""
    runtime = Runtime(Settings(base=tmp_path, store="refused.db", ceilings=Ceilings(run_input_tokens=1)))
    with use_runtime(runtime):
        outcome = await govern(Agent(Script().model), name="a").run(SECRET, user="u", tenant="acme")
    runtime.close()
    assert isinstance(outcome, Refused)
    assert logged(caplog, "run_id", "tenant", "scope") == [
        ("INFO", "model request refused by a ceiling", outcome.facts.run_id, "acme", "run")
    ]


async def test_the_retry(caplog: pytest.LogCaptureFixture) -> None:
    """The one stricter retry is logged."""
    agent = govern(Agent(Script(counts(SECRET), counts(1)).model, output_type=Count), name="a")
    outcome = await agent.run(SECRET, user="u", tenant="acme")
    assert logged(caplog, "run_id", "tenant", "agent") == [
        ("INFO", "malformed output retried with a stricter instruction", outcome.facts.run_id, "acme", "a")
    ]


async def test_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A run that fails, and one that falls back, are logged with the fault's code."""
    failed = await govern(Agent(Script(ModelAPIError("m", SECRET)).model), name="a").run(SECRET, user="u")
    fell_back = await govern(Agent(Script(ModelAPIError("m", SECRET)).model), name="a", fallback=fallback).run(
        SECRET, user="u"
    )
    assert isinstance(failed, Failed)
    assert isinstance(fell_back, FellBack)
    assert logged(caplog, "run_id", "fault") == [
        ("INFO", "run failed", failed.facts.run_id, "model_unavailable"),
        ("INFO", "run fell back", fell_back.facts.run_id, "model_unavailable"),
    ]


async def test_an_outcome_that_is_not_stored(caplog: pytest.LogCaptureFixture, runtime: Runtime) -> None:
    """An outcome that cannot be committed is an error in the log."""

    async def fill_the_disk() -> str:
        await runtime.database.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 1").fetchall())
        return "x"

    answer = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(100_000))
    script = Script(says(calls("fill_the_disk")), ModelAPIError("m", "gone"))

    async def long_answer(_request: RunRequest) -> str:
        return answer

    agent = govern(Agent(script.model, tools=[tool(fill_the_disk, effect="reads")]), name="a", fallback=long_answer)
    with pytest.raises(OutcomeNotStored) as caught:
        await agent.run(SECRET, user="u")
    assert logged(caplog, "run_id", "outcome", "error_code") == [
        ("ERROR", "outcome could not be stored", caught.value.outcome.facts.run_id, "fell_back", "store_full")
    ]
