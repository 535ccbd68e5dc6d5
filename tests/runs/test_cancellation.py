"""A run that is cancelled at any time leaves a complete record or none."""

import asyncio

import pytest
from pydantic_ai import Agent
from sqlalchemy import func, select

from handrail import Runtime, govern
from handrail.runs.store.queries import list_runs
from handrail.runs.store.tables import outcomes, run_inputs, runs
from tests.runs.scripts import Script, says


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_cancelled_after_any_number_of_turns(runtime: Runtime, steps: int) -> None:
    """Cancelled after any number of event loop turns, a run has its row, its input and one outcome, or none of them."""
    agent = govern(Agent(Script(says("hello")).model), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    [result] = await asyncio.gather(running, return_exceptions=True)
    row_counts = runtime.database.read_now(
        lambda conn: [conn.execute(select(func.count()).select_from(table)).scalar() for table in (runs, run_inputs)]
    )
    outcome_count = runtime.database.read_now(
        lambda conn: conn.execute(select(func.count()).select_from(outcomes)).scalar()
    )
    assert row_counts in ([0, 0], [1, 1])
    assert outcome_count == row_counts[0]
    assert isinstance(result, asyncio.CancelledError) or outcome_count == 1
    now = runtime.clock.now()
    recorded = runtime.database.read_now(list_runs(now, tenant=None, agent=None, limit=5, before=None))
    assert all(run.fault in (None, "cancelled") for run in recorded)
