"""How many trials run side by side."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.runner.concurrency import Throttle


@given(st.integers(1, 200), st.lists(st.booleans(), max_size=300))
def test_the_limits(most: int, went_well: list[bool]) -> None:
    """Whatever happens there is at least one place and never more than allowed; every complaint halves them."""
    throttle = Throttle(most)
    for well in went_well:
        before = throttle.places
        if well:
            throttle.went_well()
            assert before <= throttle.places <= before + 1
        else:
            throttle.too_many()
            assert throttle.places <= max(1, (before + 1) // 2)
        assert 1 <= throttle.places <= most


def test_it_grows_back() -> None:
    """After a complaint a full round that goes well gives one place back, until all are there again."""
    throttle = Throttle(8)
    throttle.too_many()
    assert throttle.places == 4
    rounds = 0
    while throttle.places < 8:
        for _ in range(throttle.places + 1):
            throttle.went_well()
        rounds += 1
    assert rounds == 4


async def test_nobody_is_lost() -> None:
    """All who wait get in, one after another, also when some of them give up waiting."""
    throttle, inside, most, done = Throttle(3), 0, 0, 0

    async def one() -> None:
        nonlocal inside, most, done
        async with throttle:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            done += 1

    tasks = [asyncio.ensure_future(one()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[5::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (inside, most, done) == (0, 3, 15)
