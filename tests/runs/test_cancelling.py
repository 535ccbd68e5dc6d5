"""A run may be cancelled at any moment."""

import asyncio

import pytest
from pydantic_ai import Agent
from sqlalchemy import func, select

from handrail import Runtime, govern
from handrail.runs.store.runs import list_runs, outcomes, run_inputs, runs
from tests.runs.scripts import Script, says


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_run_cancelled_at_any_moment_is_recorded_whole(runtime: Runtime, steps: int) -> None:
    """Cancelled after any number of the loop's turns, a run has its row, its input and one outcome, or none of them."""
    agent = govern(Agent(Script(says("hello")).model), name="a")
    running = asyncio.create_task(agent.run("hi", user="u"))
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    [ended] = await asyncio.gather(running, return_exceptions=True)
    counts = runtime.database.read_now(
        lambda conn: [conn.execute(select(func.count()).select_from(table)).scalar() for table in (runs, run_inputs)]
    )
    endings = runtime.database.read_now(lambda conn: conn.execute(select(func.count()).select_from(outcomes)).scalar())
    assert counts in ([0, 0], [1, 1])
    assert endings == counts[0]
    assert isinstance(ended, asyncio.CancelledError) or endings == 1
    now = runtime.clock.now()
    found = runtime.database.read_now(lambda conn: list_runs(conn, now, tenant=None, agent=None, limit=5, before=None))
    assert all(run.fault in (None, "cancelled") for run in found)
