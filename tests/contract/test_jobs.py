"""Background jobs, on every engine."""

import asyncio
from datetime import timedelta

from handrail.kernel.db.database import Database
from handrail.kernel.db.jobs import claim, enqueue, finish, give_up, retry_later
from handrail.testing import VirtualClock

NOW = VirtualClock().now()
LEASE = timedelta(seconds=30)


async def test_a_key_is_unique(database: Database) -> None:
    """Enqueuing a key again, also after the job is done, adds nothing."""
    first = await database.write(enqueue("mail", "k", {"n": 1}, NOW))
    second = await database.write(enqueue("mail", "k", {"n": 2}, NOW))
    assert (first, second) == ([True], [False])
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert job.payload == {"n": 1}
    assert await database.write(finish(job)) == [True]
    assert await database.write(enqueue("mail", "k", {}, NOW)) == [False]
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]


async def test_a_job_is_not_claimed_before_it_is_due(database: Database) -> None:
    """A job waits for its time, and for a worker of its kind."""
    await database.write(enqueue("mail", "k", {}, NOW + LEASE))
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]
    assert await database.write(claim(["other"], "w", NOW + LEASE, LEASE)) == [None]
    [job] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert job.key == "k"


async def test_the_longest_due_job_comes_first(database: Database) -> None:
    """Jobs are claimed in the order of their due times, then of their keys."""
    for key, minutes in (("b", 2), ("a", 2), ("c", 1)):
        await database.write(enqueue("mail", key, {}, NOW + timedelta(minutes=minutes)))
    late = NOW + timedelta(hours=1)
    order = [(await database.write(claim(["mail"], "w", late, LEASE)))[0].key for _ in range(3)]
    assert order == ["c", "a", "b"]


async def test_concurrent_claims(database: Database) -> None:
    """Of ten jobs, twenty concurrent claims get each exactly once."""
    await database.write(*(enqueue("mail", f"{n:02}", {}, NOW) for n in range(10)))
    claims = [database.write(claim(["mail"], f"w{n}", NOW, LEASE)) for n in range(20)]
    jobs = [job for [job] in await asyncio.gather(*claims) if job is not None]
    # On Postgres a claim may skip a job that another transaction is holding, and return none.
    while (job := (await database.write(claim(["mail"], "late", NOW, LEASE)))[0]) is not None:
        jobs.append(job)
    assert sorted(job.key for job in jobs) == [f"{n:02}" for n in range(10)]


async def test_a_job_with_an_expired_lease(database: Database) -> None:
    """Once its lease has expired a job can be claimed again, and the first worker can no longer finish it."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [lost] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(claim(["mail"], "w", NOW + LEASE / 2, LEASE)) == [None]
    [held] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert (held.key, held.attempts, held.lost_worker) == ("k", 2, "w")
    assert await database.write(finish(lost)) == [False]
    assert await database.write(finish(held)) == [True]


async def test_a_retried_job_is_due_later(database: Database) -> None:
    """A job that is retried keeps its count of attempts and waits for its new time."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    assert await database.write(retry_later(job, NOW + LEASE, "no answer")) == [True]
    assert await database.write(claim(["mail"], "w", NOW, LEASE)) == [None]
    [again] = await database.write(claim(["mail"], "w", NOW + LEASE, LEASE))
    assert (again.attempts, again.lost_worker) == (2, None)


async def test_a_dead_job_is_never_claimed_again(database: Database) -> None:
    """A job that was given up is never claimed again."""
    await database.write(enqueue("mail", "k", {}, NOW))
    [job] = await database.write(claim(["mail"], "w", NOW, LEASE))
    await database.write(give_up(job, "no such address"))
    assert await database.write(claim(["mail"], "w", NOW + 10 * LEASE, LEASE)) == [None]
