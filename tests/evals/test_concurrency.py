"""The limit on concurrent trials."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.runner.concurrency import Throttle


@given(st.integers(1, 200), st.lists(st.booleans(), max_size=300))
def test_the_limits(limit: int, successes: list[bool]) -> None:
    """There is always at least one slot and never more than allowed; every rate limit halves them."""
    throttle = Throttle(limit)
    for success in successes:
        before = throttle.slots
        if success:
            throttle.record_success()
            assert before <= throttle.slots <= before + 1
        else:
            throttle.back_off()
            assert throttle.slots <= max(1, (before + 1) // 2)
        assert 1 <= throttle.slots <= limit


def test_slots_are_restored() -> None:
    """After a rate limit, each full round of successes restores one slot, until all are restored."""
    throttle = Throttle(8)
    throttle.back_off()
    assert throttle.slots == 4
    rounds = 0
    while throttle.slots < 8:
        for _ in range(throttle.slots + 1):
            throttle.record_success()
        rounds += 1
    assert rounds == 4


async def test_waiting_tasks() -> None:
    """All waiting tasks get a slot eventually, even if some of them are cancelled."""
    throttle, running, peak, done = Throttle(3), 0, 0, 0

    async def work() -> None:
        nonlocal running, peak, done
        async with throttle:
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0)
            running -= 1
            done += 1

    tasks = [asyncio.ensure_future(work()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[5::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (running, peak, done) == (0, 3, 15)
